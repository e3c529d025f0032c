"""What a training says while it runs: metrics.jsonl (no clock in it), timing.jsonl beside it, and a live line."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from snaketune import files

REDRAW = 0.2  # seconds
SILENCE = 15.0  # seconds


def short(value: float, digits: int = 7) -> float | None:
    """A number as it is logged: so many significant digits; None where it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


class Log:
    """A JSON Lines file that grows; a resumed run cuts it back to where its checkpoint was."""

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        with open(path, "ab") as out:
            out.truncate(size)
        self._out = open(path, "ab")  # noqa: SIM115 - open as long as the training is

    def write(self, **fields: Any) -> None:
        self._out.write(files.dumps(fields).encode() + b"\n")

    def size(self) -> int:
        """Bytes safely on disk."""
        self._out.flush()
        os.fsync(self._out.fileno())
        return self._out.tell()

    def close(self) -> None:
        self._out.close()


class Nowhere(Log):
    """The log of a worker that leaves writing to the first."""

    def __init__(self) -> None:
        pass

    def write(self, **fields: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Line:
    """The live line: redrawn in place on a terminal, and now and then a plain one in a log."""

    def __init__(self) -> None:
        self._terminal = getattr(sys.stderr, "terminal", sys.stderr)  # past the copy into a step's log (step.py)
        self._redraws = self._terminal.isatty()
        self._drawn = self._printed = -math.inf

    def show(self, text: str, *, now: bool = False) -> None:
        """Show a line that may be left out if the last one was a moment ago, unless it must be shown `now`."""
        moment = time.monotonic()
        if self._redraws and not now and moment - self._drawn > REDRAW:
            self._drawn = moment
            self._terminal.write(f"\r\x1b[K{text}")
            self._terminal.flush()
        if now or (not self._redraws and moment - self._printed > SILENCE):
            self._printed = moment
            if self._redraws:
                self._terminal.write("\r\x1b[K")
            print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
