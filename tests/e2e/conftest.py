"""One finished run of the demo, which the end-to-end tests look at."""

import pytest
from project_copy import Project


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The demo, run to its end; leave it as it is."""
    project = Project.copied(tmp_path_factory.mktemp("demo") / "project")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    return project
