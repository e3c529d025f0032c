"""One finished run of the demo, which the end-to-end tests look at."""

from pathlib import Path

import pytest
from made_once import made_once
from project_copy import Project


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The demo, run to its end, once for all test processes; leave it as it is, or take a `twin` of it."""
    return Project(made_once(tmp_path_factory, "demo", _run_demo) / "project")


def _run_demo(folder: Path) -> None:
    done = Project.copied(folder / "project").snakemake()
    assert done.returncode == 0, done.stdout
