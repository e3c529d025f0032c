"""Progress of long work: events of the run, a bar on a terminal without a display, plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import TypeVar

from snaketune.files import StrPath
from snaketune.runtime.events import Progress, report_progress

Item = TypeVar("Item")
LOG_INTERVAL = 15.0  # seconds between plain lines
KILO = 1000.0
POLL_INTERVAL = 1.0  # seconds between two looks at a file that grows


def progress(items: Iterable[Item], label: str, total: int | None = None, *, unit: str = "rows") -> Iterator[Item]:
    """Pass the items on while showing how many went by (of `total`, where it is known)."""
    terminal = getattr(sys.stderr, "terminal", sys.stderr)  # past the copy into a step's log (step.py)
    if total is None and isinstance(items, Sized):
        total = len(items)
    items = _reported(items, label, total, unit)
    if terminal.isatty():
        yield from _bar(items, label, total, terminal)
    else:
        yield from _lines(items, label, total)


def _reported(items: Iterable[Item], label: str, total: int | None, unit: str) -> Iterator[Item]:
    """Pass the items on, and write events of how many went by and of the time left."""
    began = time.monotonic()
    count = 0
    report_progress(Progress(activity=label, done=0, total=total, unit=unit))
    for count, item in enumerate(items, 1):
        yield item
        left = (time.monotonic() - began) / count * (total - count) if total else None
        report_progress(Progress(activity=label, done=count, total=total, unit=unit, seconds_left=_rounded(left)))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(seconds, 0.0), 1)


@contextlib.contextmanager
def watching(path: StrPath, label: str, total: int | None = None) -> Iterator[None]:
    """Report the growing size of a file or folder that a library or another program writes during the block.

    total: the bytes that it will have, where they are known.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_INTERVAL):
            with contextlib.suppress(OSError):
                report_progress(Progress(activity=label, done=size_of(path), total=total, unit="bytes"))

    report_progress(Progress(activity=label, done=0, total=total, unit="bytes"))
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class ByteProgress:
    """Counts bytes that were read or written, and reports them. total: how many there will be."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0

    def add(self, count: int) -> None:
        self.done += count
        report_progress(Progress(activity=self.label, done=self.done, total=self.total, unit="bytes"))


def size_of(path: StrPath) -> int:
    """The bytes of a file, or of all files in a folder."""
    found = Path(path)
    if found.is_dir():
        return sum(file.stat().st_size for file in found.rglob("*") if file.is_file())
    return found.stat().st_size


def format_time(seconds: float) -> str:
    """`4.2 s`, `35 s`, `2:05 min` or `1:02:03 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"


def format_list(words: Sequence[str]) -> str:
    """`a`, `a and b` or `a, b and c`; empty for none."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def format_bytes(count: float) -> str:
    """`812 kB`, `1.3 GB`."""
    for unit in ("bytes", "kB", "MB"):
        if count < KILO:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "bytes" else f"{count:.1f} {unit}"
        count /= KILO
    return f"{count:.1f} GB"


def _bar(items: Iterable[Item], label: str, total: int | None, terminal: object) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import track

    console = Console(file=terminal)  # type: ignore[arg-type]
    yield from track(items, label, total=total, console=console, transient=True)


def _lines(items: Iterable[Item], label: str, total: int | None) -> Iterator[Item]:
    printed = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        if time.monotonic() - printed > LOG_INTERVAL:
            printed = time.monotonic()
            print(f"{label}: {count}{f' of {total}' if total else ''}", file=sys.stderr)
