"""One finished run of the tiny configuration, which the workflow's tests copy and change."""

import pytest
from projects import Project, tiny


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = tiny(tmp_path_factory.mktemp("workflow") / "a project's folder")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    return project
