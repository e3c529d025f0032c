"""Folders that take long to make: made once in a test run, whichever of its worker processes needs them first."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder `name` that `make` has filled, in this process or, while this one waited, in another.

    make: takes an empty folder. If it fails, it fails for every process, and is tried once. What is made is shared by
    tests that run at the same time: they copy it and leave it as it is.
    """
    own = factory.getbasetemp()
    common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own  # a worker's own folder lies in the run's
    folder, done, failed = (common / part for part in (name, f"{name}.done", f"{name}.failed"))
    with open(common / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failed.exists():
            pytest.fail(f"{name} could not be made, in this process or in another:\n{failed.read_text()}")
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
            folder.mkdir()
            try:
                make(folder)
            except Exception as error:
                failed.write_text(f"{error!r}")
                raise
            done.touch()
    return folder
