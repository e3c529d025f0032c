"""What is done at Snakemake's public hook `onstart`; no patch."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from snakemake.logging import logger
from snaketune.runtime import locks, step
from snaketune.runtime.locks import backup_modified

SIGNAL_INTERVAL = 0.3  # seconds between two looks for steps that have not been signaled
INTERRUPTED = threading.Event()  # a person typed Ctrl-C while steps ran
STEP_PREFIX = "set -euo pipefail; trap '' INT; "  # before each step's command; the first part is Snakemake's own
"""A step that is still starting does not hear SIGINT, which would be a traceback; it gets SIGTERM once it runs."""


def back_up_edited_outputs(workflow: Any) -> None:
    """Rename outputs that a person has changed and a job is about to make again."""
    for job in workflow.dag.needrun_jobs():
        for file in map(str, job.output):
            if Path(file).exists() and workflow.persistence.journal.is_modified(file):
                kept = backup_modified(file)
                logger.warning(f"snaketune: {file} was changed after its step wrote it; yours is now {kept}")


def stop_steps_on_signals(results: Path) -> None:
    """Have a SIGTERM or SIGINT to Snakemake reach the steps that it runs, where it would wait for their end.

    A training then saves a checkpoint and ends. Snakemake's own handler, which starts no more jobs, runs first. A
    SIGINT raises KeyboardInterrupt once: Snakemake then waits for the steps, and must not be interrupted in that. One
    that comes after the end of the run, while Python waits for the last threads, has nothing left to stop.
    """
    before = signal.getsignal(signal.SIGTERM)

    def signal_steps() -> None:
        threading.Thread(target=_signal_steps, args=(results,), daemon=True).start()

    def terminate(number: int, frame: FrameType | None) -> None:
        if callable(before):
            before(number, frame)
        signal_steps()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if not INTERRUPTED.is_set() and threading.main_thread().is_alive():
            INTERRUPTED.set()
            signal_steps()
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, interrupt)


def _signal_steps(results: Path) -> None:
    """Send SIGTERM once to each step below this process; also to those that start just now."""
    signaled: set[int] = set()
    while True:
        for pid in _running_steps(results) - signaled:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself since
                os.kill(pid, signal.SIGTERM)
            signaled.add(pid)
        time.sleep(SIGNAL_INTERVAL)


def _running_steps(results: Path) -> set[int]:
    """Return the processes that hold the lock of a step and were started from here."""
    below = {process.pid for process in psutil.Process().children(recursive=True)}
    holders = filter(None, map(locks.recorded_holder, step.step_locks(results)))
    return {holder.pid for holder in holders if holder.host == socket.gethostname()} & below
