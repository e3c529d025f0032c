"""A pseudo-terminal of a given size and what it shows: escape sequences are carried out as a terminal would."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import threading
import time
from collections.abc import Callable
from typing import TextIO

import pyte


class Screen:
    """A terminal to write to: `stream` is its end for a program, `lines` what a person sees, scrolled lines too."""

    def __init__(self, columns: int = 80, rows: int = 24, *, encoding: str = "utf-8") -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.stream: TextIO = open(self.theirs, "w", encoding=encoding, closefd=False)  # noqa: SIM115
        self.screen = pyte.HistoryScreen(columns, rows, history=100_000)
        self.feed = pyte.ByteStream(self.screen)
        self.received = b""
        self.closing = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while not self.closing.is_set():
                if select.select([self.ours], [], [], 0.02)[0]:
                    part = os.read(self.ours, 1 << 16)
                    self.received += part
                    self.feed.feed(part)

    def lines(self) -> list[str]:
        """What stands on the screen and above it, without empty lines at the end."""
        columns = range(self.screen.columns)
        above = ["".join(line[column].data for column in columns).rstrip() for line in self.screen.history.top]
        return "\n".join([*above, *(line.rstrip() for line in self.screen.display)]).rstrip().split("\n")

    def wait(self, true: Callable[[list[str]], object], patience: float = 10) -> list[str]:
        """Wait until what is shown fulfills something; returns it."""
        limit = time.monotonic() + patience
        while not true(self.lines()):
            if time.monotonic() > limit:
                raise TimeoutError("\n".join(self.lines()))
            time.sleep(0.01)
        return self.lines()

    def close(self) -> None:
        self.closing.set()
        self.reader.join()
        os.close(self.ours)
        os.close(self.theirs)
