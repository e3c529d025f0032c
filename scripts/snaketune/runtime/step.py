"""How a step runs: its words go to the terminal and to its log, and a person's mistake ends it without a traceback."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from snaketune.errors import UserError
from snaketune.runtime import locks
from snaketune.runtime.os_errors import explained


class _Tee(io.TextIOBase):
    """Writes to the terminal as it is, and to the log without the redrawn lines of a progress bar."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self.terminal, self.log = terminal, log

    def write(self, text: str) -> int:
        for stream in (self.terminal, self.log):
            with contextlib.suppress(OSError):  # a closed terminal or a full disk: what is said must not end the step
                stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in (self.terminal, self.log):
            with contextlib.suppress(OSError):
                stream.flush()

    def isatty(self) -> bool:
        return self.terminal.isatty()


def lock_file(log: str | Path) -> Path:
    """Return the lock file that the step with this log holds while it runs."""
    return Path(log).with_name(f".{Path(log).stem}.lock")


def step_locks(results: str | Path) -> list[Path]:
    """Return the lock files of all steps that ever ran in a results folder."""
    return sorted(path for pattern in ("logs/.*.lock", "*/logs/.*.lock") for path in Path(results).glob(pattern))


def all_locks(results: str | Path) -> list[Path]:
    """Return the same and those of trainings, whose worker processes may outlive their step."""
    return [*step_locks(results), *sorted(Path(results).glob("**/checkpoints/lock"))]


@contextlib.contextmanager
def running(log: str | Path) -> Iterator[None]:
    """Run a step's work: stderr is copied to `log`; a UserError is shown as its sentences and ends with exit code 1.

    A full disk, a lack of memory and the like are told as such. Any other exception is a defect of ours: the log keeps
    its traceback, and it ends with exit code 1 as well. No step runs twice at once: the second one ends with the pid
    of the first.
    """
    terminal = sys.stderr
    try:
        with locks.hold_lock(lock_file(log), f"running {Path(log).stem}"), _logged(log):
            yield
    except UserError as error:
        _say(f"snaketune: {error}", terminal)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        _say(f"snaketune: {Path(log).stem} is stopped; run snakemake again to go on", terminal)
        raise SystemExit(128 + signal.SIGINT) from None


@contextlib.contextmanager
def _logged(log: str | Path) -> Iterator[None]:
    """Copy stderr to `log` during the block, and what it ends with as well."""
    terminal = sys.stderr
    kept = _emptied(log)
    sys.stderr = _Tee(terminal, kept)
    try:
        yield
    except Exception as error:
        known = error if isinstance(error, UserError) else explained(error, log)
        if known:
            _say(f"snaketune: {known}", kept)
            raise known from None
        _say("".join(traceback.format_exception(error)), kept)
        _say(f"snaketune: this should not have happened; the traceback is in {log}", terminal)
        raise SystemExit(1) from None
    finally:
        sys.stderr = terminal
        with contextlib.suppress(OSError):
            kept.close()


def _emptied(log: str | Path) -> TextIO:
    return open(log, "w", encoding="utf-8", buffering=1)


def _say(words: str, stream: TextIO) -> None:
    """Print a line, in the place of a live line that was cut off."""
    with contextlib.suppress(OSError):
        print(f"\r\x1b[K{words}" if stream.isatty() else words, file=stream)
