"""Settings for all tests, and one finished run that many of them copy and change.

One thread a process, and hypothesis measures no time, since machines are shared. Python keeps its bytecode whatever the
environment says: the tests start a thousand processes, which would each compile the library anew.
"""

import os
import sys
from pathlib import Path

import pytest
from file_access_trace import Traced, read_trace, trace_tiny
from hypothesis import settings
from made_once import made_once
from project_copy import Project
from run_copies import RunCopies
from started_first import LONGEST_FIRST
from tools import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]  # a hook: pytest finds it here

TESTS = Path(__file__).parent

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("steady", deadline=None, print_blob=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """The run, and the files of the project that each of its rules opened."""
    return read_trace(made_once(tmp_path_factory, "finished", trace_tiny))


@pytest.fixture(scope="session")
def finished(traced: Traced) -> Project:
    """The tiny configuration, run to its end; leave it as it is and change a `twin` of it."""
    return traced[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first: started last, one would run on alone while other cores wait."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.relative_to(TESTS).as_posix(), len(places)))


@pytest.fixture(scope="session")
def run_copies(finished: Project) -> RunCopies:
    """Runs made out of the finished one, with answers of which the comparison is known."""
    return RunCopies(finished)
