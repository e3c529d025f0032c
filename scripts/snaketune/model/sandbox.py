"""Ending what does not end by itself: a stranger's chat template and tokenizer run under limits of time and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from snaketune.errors import ModelError

BYTES = 8 << 30  # address space beyond what the process has


@contextlib.contextmanager
def within(seconds: float, doing: str, *, where: str) -> Iterator[None]:
    """End Python code that takes longer, with a ModelError; only in the main thread, where signals arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def too_long(*_: Any) -> None:
        raise ModelError(
            f"{doing} took longer than {seconds:g} seconds",
            where=where,
            why="It would do so for every row",
            fix="Set model.chat_template to another template, or use another base",
        )

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def try_apart(work: Callable[[], None], doing: str, *, where: str, seconds: float) -> None:
    """Run `work` in a fork of this process, with limits; ModelError if it does not end, or ends by a crash.

    An exception of `work` is not reported: the caller does the same again and meets it. The tokenizer's engine works
    outside Python, where no signal handler is run, hence a process that can be killed; where its patterns give up, it
    panics, which is no Exception.
    """
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            _limit_memory(BYTES)
            with contextlib.suppress(Exception):
                work()
            code = 0
        os._exit(code)
    until = time.monotonic() + seconds
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < until:
        time.sleep(0.02)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not ended or status:
        crash = f"was ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "crashed"
        how = crash if ended else f"took longer than {seconds:g} seconds"
        raise ModelError(
            f"{doing} {how}",
            where=where,
            why="A tokenizer or template that is sound needs less than a second for a few short texts",
            fix="Take the model from its own publisher again, or use another base",
        )


def _limit_memory(more: int) -> None:
    """Give this process at most `more` bytes of address space beyond what it has, where the system can say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)
