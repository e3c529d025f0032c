"""Follower of a run: a thread that reads the events of the run, keeps the board and lets a view draw it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Protocol, TextIO

from snaketune.display.board import Board, Job
from snaketune.files import StrPath
from snaketune.runtime.events import Event, EventReader

INTERVAL = 0.2  # seconds between two looks


class View(Protocol):
    """What draws a board: lines in a log, or stages on a terminal."""

    def say(self, text: str) -> None: ...
    def ended(self, job: Job, event: Event) -> None: ...
    def tick(self, now: float) -> None: ...
    def close(self, now: float) -> None: ...


def make_view(stream: TextIO, board: Board) -> View:
    """The view that fits a stream: redrawn on a terminal that can, plain lines elsewhere."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from snaketune.display.terminal import TerminalView

        return TerminalView(stream, board)
    from snaketune.display.lines import PlainView

    return PlainView(stream, board)


class Follower:
    """Shows the events that are appended from now on, until it is closed."""

    def __init__(self, path: StrPath, stream: TextIO) -> None:
        self.board = Board()
        self.view = make_view(stream, self.board)
        self.reader = EventReader(path)
        self.reader.skip_to_end()
        self.has_failed = self.was_stopped = False
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="snaketune-display", daemon=True)
        self._thread.start()

    def say(self, text: str) -> None:
        with self._lock:
            self.view.say(text)

    def plan(self, steps: Mapping[str, int]) -> None:
        with self._lock:
            self.board.plan(steps)

    def submit(self, step: str, wildcards: Mapping[str, str]) -> None:
        """Show a job that has been given to the machine, or to a cluster, and has yet to say that it runs."""
        with self._lock:
            self.board.submit(step, wildcards, time.time())

    def end(self, event: Event) -> bool:
        """Show the end of a job unless its own event has said so; returns whether it had not."""
        with self._lock:
            self.catch_up()
            running = event.job in self.board.stage(event.step).jobs
            if running:
                self._show(event)
            return running

    def catch_up(self) -> None:
        """Take in what was appended since the last look."""
        with self._lock:
            for event in self.reader.read():
                if event.step:
                    self._show(event)

    def _show(self, event: Event) -> None:
        job = self.board.apply(event)
        if event.state == "warning":
            self.view.say(f"snaketune: {event.message}")
        elif event.state == "failed" and job:
            self.has_failed = True
            log = f"\n  log: {event.log}" if event.log else ""
            self.view.say(f"snaketune: {event.message or f'{job.name} failed'}{log}")
        elif event.state == "stopped" and job:
            self.was_stopped = True
            self.view.say(f"snaketune: {event.message}")
        if job:
            self.view.ended(job, event)

    def _follow(self) -> None:
        while not self._closing.wait(INTERVAL):
            with self._lock:
                self.catch_up()
                self.view.tick(time.time())

    def close(self) -> None:
        """Show what is left, and stop."""
        self._closing.set()
        self._thread.join()
        with self._lock:
            self.catch_up()
            self.view.close(time.time())
