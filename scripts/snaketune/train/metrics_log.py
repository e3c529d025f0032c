"""metrics.jsonl and timing.jsonl as files that grow and are cut back, their readers, and the status line."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path

import msgspec

from snaketune.contracts.train import StepMetrics, ValidationMetrics
from snaketune.files import Record, StrPath, read_jsonl

REDRAW_INTERVAL = 0.2  # seconds between two drawings on a terminal
LOG_INTERVAL = 15.0  # seconds between two lines in a log


def round_significant(value: float, digits: int = 7) -> float | None:
    """A number rounded to so many significant digits, as logs have it; None where it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def read_metrics(path: StrPath) -> list[StepMetrics | ValidationMetrics]:
    """The lines of metrics.jsonl."""
    lines: list[StepMetrics | ValidationMetrics] = []
    for line in read_jsonl(path):
        if "validation_loss" in line:
            lines.append(msgspec.convert(line, ValidationMetrics))
        else:
            lines.append(msgspec.convert(line, StepMetrics))
    return lines


class JsonlLog:
    """A JSON Lines file that grows; a resumed run cuts it back to the size that its checkpoint names."""

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        with open(path, "ab") as out:
            out.truncate(size)
        self._out = open(path, "ab")  # noqa: SIM115 - open as long as the training is

    def write(self, record: Record) -> None:
        """Append a record; its fields keep their order, NaN is refused."""
        line = json.dumps(msgspec.to_builtins(record), ensure_ascii=False, allow_nan=False)
        self._out.write(line.encode() + b"\n")

    def size(self) -> int:
        """Bytes safely on disk."""
        self._out.flush()
        os.fsync(self._out.fileno())
        return self._out.tell()

    def close(self) -> None:
        self._out.close()


class NullLog(JsonlLog):
    """The log of a worker that leaves writing to the main process."""

    def __init__(self) -> None:
        pass

    def write(self, record: Record) -> None:
        pass

    def size(self) -> int:
        return 0

    def close(self) -> None:
        pass


class StatusLine:
    """Status line: redrawn in place on a terminal; a plain line every `LOG_INTERVAL` in a log."""

    def __init__(self) -> None:
        self._terminal = getattr(sys.stderr, "terminal", sys.stderr)  # past the copy into a step's log
        self._redraws = self._terminal.isatty()
        self._last_drawn = self._last_printed = -math.inf

    def show(self, text: str, *, now: bool = False) -> None:
        """Show a line; it may be left out if the last one was a moment ago, unless it must be shown `now`."""
        moment = time.monotonic()
        if self._redraws and not now and moment - self._last_drawn > REDRAW_INTERVAL:
            self._last_drawn = moment
            self._terminal.write(f"\r\x1b[K{text}")
            self._terminal.flush()
        if now or (not self._redraws and moment - self._last_printed > LOG_INTERVAL):
            self._last_printed = moment
            if self._redraws:
                self._terminal.write("\r\x1b[K")
            print(text, file=sys.stderr, flush=True)


def format_duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
