"""Shows how far a part of the set-up is: one line, redrawn on a terminal, and now and then a line in a log."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

LOG_INTERVAL = 15.0  # seconds between the lines of a part that goes to a log
REDRAW_INTERVAL = 0.2


class ProgressLine:
    """Shows one part: its name, what it is doing, and its time. `finish` leaves one line that stays."""

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.name = name
        self.start = time.monotonic()
        self.detail = ""
        self._redrawn = self.stream.isatty()
        self._shown = self.start if not self._redrawn else 0.0

    def update(self, detail: str = "") -> None:
        """Show `detail`, or the last one again with its time, if the last line is old enough."""
        self.detail = detail or self.detail
        now = time.monotonic()
        if now - self._shown < (REDRAW_INTERVAL if self._redrawn else LOG_INTERVAL):
            return
        self._shown = now
        if self._redrawn:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\033[K{self._text(self.detail)[:width]}")
        else:
            self._write(f"{self._text(self.detail)}\n")

    def say(self, sentence: str) -> None:
        """Print a sentence of its own above the line."""
        self._write(f"\r\033[K  {sentence}\n" if self._redrawn else f"  {sentence}\n")

    def finish(self, outcome: str = "done") -> None:
        """Replace the line by its outcome."""
        self._write(("\r\033[K" if self._redrawn else "") + f"{self._text(outcome)}\n")

    def clear(self) -> None:
        """Remove the line, so that a message stands alone."""
        if self._redrawn:
            self._write("\r\033[K")

    def _text(self, detail: str) -> str:
        return f"  {self.name:<20} {duration(time.monotonic() - self.start):>9}  {detail}"

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def duration(seconds: float) -> str:
    """Return `8 s` or `3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Return bytes as `190 MB` or `2.6 GB`, in powers of 1,000 as download pages do."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
