"""Settings for all tests, and one finished run that many of them copy and change.

One thread a process, and hypothesis measures no time, since machines are shared.
"""

import os

import pytest
from hypothesis import settings
from projects import Project, tiny

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

settings.register_profile("steady", deadline=None, print_blob=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny configuration, run to its end; leave it as it is and change a `twin` of it."""
    project = tiny(tmp_path_factory.mktemp("finished") / "a project's folder")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    return project
