"""Ctrl-C and SIGTERM in a step: it ends in order where it can, and after a moment's grace in any case.

Python runs the handler of a signal between two of its own instructions, and a library may compute for minutes within
one: a matrix product of a large model, a conversion. A thread learns of a signal at once, through the wakeup descriptor
of the signal module, and ends the process when the grace is over. What is being finished, such as a checkpoint that is
being written, is waited for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

GRACE = 1.2  # seconds for an end in order
LONGEST_FINISH = 120.0  # seconds for what is being finished
SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTHING_KEPT = "what other steps have finished is kept"


class _State:
    """What a process knows about its end: one step runs in it at a time."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.kept = NOTHING_KEPT
        self.received = 0
        self.finishing = 0
        self.is_announced = threading.Lock()  # whoever takes it says the last words


_state = _State()


def keep(what: str) -> None:
    """Note what a person still has if the step is stopped now."""
    _state.kept = what


def exit_code() -> int:
    """Return the exit code of a step that a signal stopped."""
    return 128 + (_state.received or signal.SIGINT)


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """Hold off the end of the process while something is finished that must not be cut off."""
    _state.finishing += 1
    try:
        yield
    finally:
        _state.finishing -= 1


@contextlib.contextmanager
def stop_on_signals(announce: Callable[[str], None]) -> Iterator[None]:
    """End the block by KeyboardInterrupt at the first SIGINT or SIGTERM, and the process if that takes too long.

    announce: is called once with what was kept, before the process ends. Outside of the main thread, where Python takes
    no signals, nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    _state.reset()
    previous = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    previous_descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(reading, ended, announce), daemon=True)
    watcher.start()
    try:
        yield
    except KeyboardInterrupt:
        _announce_once(announce)
        raise
    finally:
        ended.set()
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_descriptor)
        os.close(writing)
        watcher.join()
        os.close(reading)


def _interrupt(number: int, _frame: object) -> None:
    """Raise at the first signal; the terminal and Snakemake may both send one."""
    if not _state.received:
        _state.received = number
        raise KeyboardInterrupt


def _watch(reading: int, ended: threading.Event, announce: Callable[[str], None]) -> None:
    """Wait for a signal, then for the end of the block; in the thread beside it."""
    while (received := os.read(reading, 1)) and received[0] not in SIGNALS:
        pass
    if not received:
        return
    began = time.monotonic()
    while (passed := time.monotonic() - began) < GRACE or (_state.finishing and passed < LONGEST_FINISH):
        if ended.wait(0.05):
            return
    _announce_once(announce)
    _kill_children()
    os._exit(128 + received[0])


def _announce_once(announce: Callable[[str], None]) -> None:
    if _state.is_announced.acquire(blocking=False):
        announce(_state.kept)


def _kill_children() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
