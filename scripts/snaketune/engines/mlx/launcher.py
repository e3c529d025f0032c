"""A training on several processes, on this machine or on others: started with `mlx.launch`, watched, ended together.

A worker that dies, or that shows no sign of life, or that the others cannot wait for any longer, ends them all; the
error names it and repeats its last words. Every worker ends by itself once it hears nothing from here.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snaketune import errors
from snaketune.config import hosts
from snaketune.errors import TrainingError, UserError
from snaketune.train.signals import Interrupts

SILENCE = 60.0  # seconds without a sign of life
GRACE = 10.0  # seconds for the others to end by themselves
CHECKPOINT = 25.0  # seconds for workers to save what they have, once asked to stop
WORD = 2.0  # seconds between signs of life to the workers
LAST_WORDS = 5  # lines
EXITED = re.compile(r"Node with rank (\d+) (?:was killed|exited with code (-?\d+))")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Worker:
    """What is known of one worker. `ended`: None, or how it says it ended, or its exit code."""

    host: str
    heard: float
    moved: float
    steps: int = -1
    waiting: bool = False
    ended: str | None = None
    code: int | None = None
    error: UserError | None = None
    words: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=LAST_WORDS))


def train(arguments: dict[str, Any]) -> None:
    """Run `trainer.train_part` with these arguments in every worker of arguments["settings"].

    Raises the error that a worker raised, or TrainingError with the name and last words of one that died or hung.
    """
    settings = arguments["settings"]
    names = hosts.names(settings)
    launch = Launch(command(settings, arguments), names, settings["worker_timeout"])
    try:
        launch.to_the_end()
    finally:
        launch.end()


def command(settings: dict[str, Any], arguments: dict[str, Any]) -> list[str]:
    """The command line of mlx.launch."""
    port = free_ports(settings["workers"])
    given = json.dumps(arguments | {"backend": "any"}, default=str)
    scripts = Path(__file__).resolve().parents[3]
    return [
        str(Path(sys.executable).with_name("mlx.launch")),
        *hosts.launch_arguments(settings),
        *("--starting-port", str(port), "--nccl-port", str(port)),
        *("--env", f"PYTHONPATH={scripts}"),
        "--",
        *(sys.executable, "-m", "snaketune.engines.mlx.worker", given),
    ]


def free_ports(count: int) -> int:
    """The first of some neighbouring ports that are free here, so that trainings can run beside each other."""
    for first in range(32323, 60000, count):
        with contextlib.ExitStack() as opened, contextlib.suppress(OSError):
            for port in range(first, first + count):
                opened.enter_context(socket.socket()).bind(("", port))
            return first
    raise errors.ResourceError(f"no {count} ports in a row are free", where="train.workers", fix="Use fewer workers")


class Launch:
    """mlx.launch and the workers it started. names: the workers' hosts; timeout: seconds, see `_hung`."""

    def __init__(self, command: list[str], names: list[str], timeout: float) -> None:
        now = time.monotonic()
        self.workers = [Worker(name, heard=now, moved=now) for name in names]
        self.timeout, self.stopped = timeout, 0
        self.words: collections.deque[str] = collections.deque(maxlen=LAST_WORDS)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        self._selector = selectors.DefaultSelector()
        self._rests = {}
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            self._selector.register(stream, selectors.EVENT_READ)
            self._rests[stream.fileno()] = b""

    def to_the_end(self) -> None:
        """Until every worker has ended well; raises what a person should know otherwise."""
        word, over = 0.0, None
        with Interrupts() as interrupts:
            while self._selector.get_map():
                self._read()
                now = time.monotonic()
                if interrupts.seen and not self.stopped:
                    self.stopped = interrupts.seen
                    self._tell(b"stop\n")
                if now - word > WORD:
                    word = now
                    self._tell(b".\n")
                ended = [one.ended for one in self.workers]
                if over is None and (None not in ended or {*ended} - {None, "well"}):
                    over = now
                if over is not None and now - over > GRACE:
                    break
                hung = self._hung(now)
                if hung:
                    raise hung
            self._wait_for_the_last()
        if any(one.ended != "well" for one in self.workers):
            raise self._verdict()

    def end(self) -> None:
        """Leave nothing of it running here; workers elsewhere end when they hear nothing more."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._selector.close()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()

    def _wait_for_the_last(self) -> None:
        """Where a cluster ended mlx.launch together with this process, the workers are still writing a checkpoint."""
        until = time.monotonic() + (CHECKPOINT if self.stopped else 0.0)
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < until:
                self.process.poll()
                os.killpg(self.process.pid, 0)
                time.sleep(0.1)

    def _tell(self, word: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            os.write(self.process.stdin.fileno(), word)

    def _read(self) -> None:
        for key, _ in self._selector.select(0.2):
            data = os.read(key.fd, 65536)
            if not data:
                self._selector.unregister(key.fileobj)
                continue
            *lines, self._rests[key.fd] = (self._rests[key.fd] + data).split(b"\n")
            for line in lines:
                self._take(line.decode(errors="replace").strip())

    def _take(self, line: str) -> None:
        """A line from a worker, or from mlx.launch."""
        try:
            told = json.loads(line)
            worker = self.workers[told["worker"]]
        except (ValueError, TypeError, KeyError, IndexError):
            self._take_words(line)
            return
        worker.heard = time.monotonic()
        if "says" in told:
            worker.words.append(told["says"])
            if told["worker"] == 0:
                print(told["says"], file=sys.stderr, flush=True)
        if "steps" in told:
            if told["steps"] != worker.steps:
                worker.moved = worker.heard
            worker.steps, worker.waiting = told["steps"], told["waiting"]
        if "ended" in told:
            worker.ended = told["ended"]
            if told["ended"] == "error":
                worker.error = getattr(errors, told["kind"], TrainingError)(**told["error"])

    def _take_words(self, line: str) -> None:
        exited = EXITED.search(line)
        if exited:
            worker = self.workers[int(exited[1])]
            worker.ended, worker.code = worker.ended or "exit", int(exited[2] or -signal.SIGTERM)
        elif line:
            self.words.append(COLOURS.sub("", line))

    def _hung(self, now: float) -> TrainingError | None:
        """An error that names a silent worker; or, when for `timeout` none has moved on, those the others wait for."""
        for number, one in enumerate(self.workers):
            if one.ended is None and now - one.heard > SILENCE:
                return self._error(number, f"has shown no sign of life for {SILENCE:.0f} seconds")
        going = [number for number, one in enumerate(self.workers) if one.ended is None]
        if going and all(now - self.workers[number].moved > self.timeout for number in going):
            late = [number for number in going if not self.workers[number].waiting] or going
            return self._error(late[0], f"has not moved on for {self.timeout:.0f} seconds (train.worker_timeout)")
        return None

    def _verdict(self) -> UserError:
        """Why the training ended: a worker's own error before a death, and a death before what it did to others."""
        for one in self.workers:
            if one.error:
                return one.error
        if self.stopped:
            return TrainingError(
                f"stopped by {_signal(self.stopped)}",
                fix="Run snakemake again: training goes on from the last checkpoint",
            )
        for sought in ("defect", "exit", None, "lost"):
            for number, one in enumerate(self.workers):
                if one.ended == sought and one.code is not None and one.code < 0:
                    return self._error(number, f"was killed by {_signal(-one.code)}")
                if one.ended == sought:
                    return self._error(number, f"ended with exit code {one.code}" if one.code else "did not end well")
        raise AssertionError("all ended well")

    def _error(self, number: int, what: str) -> TrainingError:
        worker = self.workers[number]
        words = list(worker.words) or list(self.words)
        said = f'; its last words: "{" / ".join(words)}"' if words else "; it had said nothing"
        return TrainingError(
            f"worker {number} of {len(self.workers)} ({worker.host}) {what}{said}",
            where="train.workers",
            fix="Mend that machine or take it out of train.hosts, and run snakemake again: with as many workers as "
            "before it goes on from the last checkpoint",
        )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
