"""Progress of long work: a bar on a terminal, a plain line at intervals in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")
LOG_INTERVAL = 15.0  # seconds between plain lines


def progress(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Pass the items on while showing how many went by (of `total`, where it is known)."""
    terminal = getattr(sys.stderr, "terminal", sys.stderr)  # past the copy into a step's log (step.py)
    if total is None and isinstance(items, Sized):
        total = len(items)
    if terminal.isatty():
        yield from _bar(items, label, total, terminal)
    else:
        yield from _lines(items, label, total)


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
