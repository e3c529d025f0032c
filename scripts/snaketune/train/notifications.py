"""What happens around a training: the machine is kept awake, and someone is told how it ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

PATIENCE = 60.0  # seconds that a notification may take


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Keep macOS from sleeping while the block runs; `caffeinate -w` ends with this process, however it ends."""
    if sys.platform != "darwin":
        yield
        return
    keeper = subprocess.Popen(["caffeinate", "-i", "-w", str(os.getpid())])
    try:
        yield
    finally:
        keeper.terminate()
        keeper.wait()


@contextlib.contextmanager
def notifying(command: str | None, what: str) -> Iterator[None]:
    """Run a shell command when the block ends, well or not.

    It finds SNAKETUNE_RUN (what was done), SNAKETUNE_STATUS (`done` or `failed`) and SNAKETUNE_MESSAGE in its
    environment. That it fails is said and changes nothing.
    """
    try:
        yield
    except BaseException as error:
        _notify(command, what, "failed", str(error) or type(error).__name__)
        raise
    _notify(command, what, "done", "")


def _notify(command: str | None, what: str, status: str, message: str) -> None:
    if not command:
        return
    told = {"SNAKETUNE_RUN": what, "SNAKETUNE_STATUS": status, "SNAKETUNE_MESSAGE": message}
    try:
        ended = subprocess.run(command, shell=True, env=os.environ | told, timeout=PATIENCE, check=False)
        problem = f"exit code {ended.returncode}" if ended.returncode else ""
    except (OSError, subprocess.SubprocessError) as error:
        problem = str(error)
    if problem:
        print(f"snaketune: train.notify failed ({problem})", file=sys.stderr)
