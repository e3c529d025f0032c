"""Events of a run: results/<run>/events.jsonl, a line for each that happens, for whoever watches (docs/events.md).

The steps write it, whoever runs them, and the display on the terminal only follows it. Several processes append at
once: each line is one write, behind a lock of the file where its file system has locks. Nothing that is computed
depends on it, so a full disk ends no step here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from snaketune.files import StrPath

EVENTS_VARIABLE = "SNAKETUNE_EVENTS"  # the path of the file, for the processes of the steps; rules/common.smk sets it
DISPLAY_VARIABLE = (
    "SNAKETUNE_DISPLAY"  # set where a display draws on the terminal, so that steps write to their logs only
)

State = Literal["started", "progress", "warning", "finished", "failed", "stopped"]
MIN_INTERVAL = 0.5  # seconds between two progress events of a step at its beginning
MAX_INTERVAL = 10.0  # and after hours
GROWTH = 8_000_000  # bytes of the file at which all intervals have doubled
MAX_BYTES = 32_000_000  # a larger file is put aside when a run begins
LOCK_ATTEMPTS = 20


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a step is in what it does now, and the numbers of a training."""

    activity: str
    """What is done, to read before the numbers: training, validation, scoring, hashing."""
    done: int
    total: int | None = None
    """How many there are, of `unit`; absent where nobody knows."""
    unit: str = "rows"
    seconds_left: float | None = None
    loss: float | None = None
    """Mean over the target tokens of the last optimizer step, nats."""
    validation_loss: float | None = None
    best_validation_loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    """Target tokens."""
    memory_bytes: int | None = None
    """Peak of the engine."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of events.jsonl. Without a step, it is about the run as a whole: one call of snakemake."""

    time: float
    """Seconds since 1970, UTC."""
    run: str
    state: State
    step: str = ""
    """The name of the rule."""
    wildcards: dict[str, str] = msgspec.field(default_factory=dict)
    """Which of the rule's jobs: experiment, variant, type and the like."""
    progress: Progress | None = None
    message: str = ""
    """finished: what came of it; failed, stopped and warning: what a person needs to know."""
    log: str = ""
    """The step's log."""
    steps: dict[str, int] = msgspec.field(default_factory=dict)
    """Of a run that has started: how many jobs of each step it is going to run."""
    command: str = ""
    """Of a run: the command that started it, which also goes on after a stop."""
    pid: int = 0
    """Of a run that has started: the process of snakemake."""

    @property
    def job(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Which job of the run it is about."""
        return self.step, tuple(sorted(self.wildcards.items()))


class EventFile:
    """The events file of one run, to append to. size: its bytes after the last append."""

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self.run = self.path.parent.name
        self.size = 0

    def append(self, event: Event) -> None:
        """Append a line, whole; on a disk that takes nothing, the event is lost and nothing else."""
        line = msgspec.json.encode(event) + b"\n"
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                _lock(descriptor)
                self.size = os.fstat(descriptor).st_size
                torn = (
                    self.size and os.pread(descriptor, 1, self.size - 1) != b"\n"
                )  # a writer was killed, or the disk full
                self.size += os.write(descriptor, b"\n" + line if torn else line)
            finally:
                os.close(descriptor)

    def set_aside_if_large(self) -> None:
        """Begin a new file where the old one has grown over the nights; it stays as events.old.jsonl."""
        with contextlib.suppress(OSError):
            if self.path.stat().st_size > MAX_BYTES:
                os.replace(self.path, self.path.with_suffix(".old.jsonl"))


def _lock(descriptor: int) -> None:
    """Lock the file against other writers; give up soon, for a line is one write and rarely needs it."""
    for _ in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:  # a file system without locks
            return
        else:
            return


class EventReader:
    """Follows an events file: each `read` returns what was appended since the last one.

    offset: where the next read begins. A file that was replaced is read from its beginning.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self.offset = 0
        self._inode: int | None = None
        self._decode = msgspec.json.Decoder(Event).decode

    def skip_to_end(self) -> None:
        """Leave out what is in the file now."""
        with contextlib.suppress(OSError):
            state = self.path.stat()
            self.offset, self._inode = state.st_size, state.st_ino

    def read(self) -> list[Event]:
        """Return the new events; a line that is not whole yet waits, one that is damaged is left out."""
        try:
            with open(self.path, "rb") as lines:
                state = os.fstat(lines.fileno())
                if self._inode not in (None, state.st_ino) or state.st_size < self.offset:
                    self.offset = 0
                self._inode = state.st_ino
                lines.seek(self.offset)
                content = lines.read()
        except OSError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self.offset += len(whole)
        events = []
        for line in whole.splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                events.append(self._decode(line))
        return events


class StepEvents:
    """Writes the events of one running step."""

    def __init__(self, file: EventFile, step: str, wildcards: Mapping[str, str], log: str) -> None:
        self.file, self.step, self.wildcards, self.log = file, step, dict(wildcards.items()), log
        self.result = ""
        self._began = time.monotonic()
        self._last = -MAX_INTERVAL
        self._activity = ""
        self._lock = threading.Lock()

    def add(self, state: State, message: str = "", progress: Progress | None = None) -> None:
        self.file.append(
            Event(
                time=round(time.time(), 3),
                run=self.file.run,
                state=state,
                step=self.step,
                wildcards=self.wildcards,
                progress=progress,
                message=message,
                log=self.log,
            )
        )

    def add_progress(self, progress: Progress) -> None:
        """Write a progress event, unless the last one of the same activity was a moment ago."""
        now = time.monotonic()
        with self._lock:
            grown = 1 + self.file.size / GROWTH
            interval = min(max(MIN_INTERVAL, (now - self._began) / 100), MAX_INTERVAL) * grown
            if progress.activity == self._activity and now - self._last < interval and progress.done != progress.total:
                return
            self._activity, self._last = progress.activity, now
        self.add("progress", progress=progress)


_current: StepEvents | None = None  # of the step that this process runs


@contextlib.contextmanager
def reporting(log: StrPath, wildcards: Mapping[str, str] | None = None) -> Iterator[StepEvents | None]:
    """Report a step's start, and what becomes of the block; yields None where no file of events was named.

    The caller reports a failure, which it knows in words.
    """
    global _current
    path = os.environ.get(EVENTS_VARIABLE)
    if not path:
        yield None
        return
    step = Path(log).stem.partition("-")[0]
    _current = StepEvents(EventFile(path), step, wildcards or {}, str(log))
    _current.add("started")
    try:
        yield _current
        _current.add("finished", _current.result)
    finally:
        _current = None


def report_progress(progress: Progress) -> None:
    """Say how far the running step is; where no step runs, as in a test or a worker process, nothing happens."""
    if _current is not None:
        _current.add_progress(progress)


def report_result(message: str) -> None:
    """Say in half a sentence what came of the running step; the last call counts."""
    print(message, file=sys.stderr)
    if _current is not None:
        _current.result = message


def report_warning(message: str) -> None:
    """Say what a person should know although the step goes on."""
    print(f"snaketune: {message}", file=sys.stderr)
    if _current is not None:
        _current.add("warning", message)
