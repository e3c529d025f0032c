"""What a training says while it runs: metrics.jsonl (no clock in it), timing.jsonl beside it, and a live line."""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snaketune import files


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


@dataclass
class Line:
    """The live line: redrawn in place on a terminal, printed every `interval` seconds elsewhere."""

    updates: int
    interval: float = 30.0

    def __post_init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = -math.inf
        self._width = 0

    def show(self, text: str, *, now: bool = False) -> None:
        moment = time.monotonic()
        if not now and moment - self._last < (0.2 if self._terminal else self.interval):
            return
        self._last = moment
        if self._terminal:
            sys.stderr.write("\r" + text.ljust(self._width) + ("\n" if now else ""))
            self._width = 0 if now else len(text)
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
