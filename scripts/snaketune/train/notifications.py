"""Keeps the machine awake during training and runs the notify command afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

NOTIFY_TIMEOUT = 60.0  # seconds that the command may take


@contextlib.contextmanager
def keep_awake() -> Iterator[None]:
    """Keep macOS from sleeping while the block runs; `caffeinate -w` ends with this process, however it ends."""
    if sys.platform != "darwin":
        yield
        return
    caffeinate = subprocess.Popen(["caffeinate", "-i", "-w", str(os.getpid())])
    try:
        yield
    finally:
        caffeinate.terminate()
        caffeinate.wait()


@contextlib.contextmanager
def notify_on_exit(command: str | None, task: str) -> Iterator[None]:
    """Run a shell command when the block ends, well or not.

    It finds SNAKETUNE_RUN (`task`), SNAKETUNE_STATUS (`done` or `failed`) and SNAKETUNE_MESSAGE in its environment.
    A command that fails is reported on stderr and changes nothing.
    """
    try:
        yield
    except BaseException as error:
        _notify(command, task, "failed", str(error) or type(error).__name__)
        raise
    _notify(command, task, "done", "")


def _notify(command: str | None, task: str, status: str, message: str) -> None:
    if not command:
        return
    variables = {"SNAKETUNE_RUN": task, "SNAKETUNE_STATUS": status, "SNAKETUNE_MESSAGE": message}
    try:
        process = subprocess.run(command, shell=True, env=os.environ | variables, timeout=NOTIFY_TIMEOUT, check=False)
        problem = f"exit code {process.returncode}" if process.returncode else ""
    except (OSError, subprocess.SubprocessError) as error:
        problem = str(error)
    if problem:
        print(f"snaketune: train.notify failed ({problem})", file=sys.stderr)
