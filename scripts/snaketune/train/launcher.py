"""Launches a training on several processes, here or on other hosts, and watches them.

A worker that dies, shows no sign of life, or keeps the others waiting for too long ends them all; the error names it
and repeats its last lines. Every worker ends by itself once it hears nothing from the launcher. Workers send messages:
lines of JSON on standard output, each with the worker's rank. An engine gives the command that starts them all.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from snaketune import errors
from snaketune.config import experiments
from snaketune.contracts.train import TrainingJob
from snaketune.errors import StoppedError, TrainingError, UserError
from snaketune.train.checkpoints import DeferredSignals
from snaketune.train.metrics_log import TrainingCallback, WorkerProgress

FIRST_PORT, LAST_PORT = 20_000, 32_000  # below those that systems give to outgoing connections
PORTS_APART = 16  # of two processes whose numbers are neighbors


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="message"):
    """Base of the messages; rank: the worker's."""

    rank: int


class Output(Message, frozen=True, kw_only=True, tag="output"):
    """A line that the worker wrote to stderr."""

    line: str


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """A sign of life: how many collective operations the worker has begun, and whether it waits for the others."""

    num_collectives: int
    is_waiting: bool


class WorkerError(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a UserError, and the name of its class."""

    kind: str
    what: str
    where: str
    why: str
    fix: str


class Ended(Message, frozen=True, kw_only=True, tag="ended"):
    """The last message. how: "well", "error" (with the error), "lost" (another process is gone) or "defect".

    reason: what the backend said when another process was lost.
    """

    how: str
    error: WorkerError | None = None
    reason: str = ""


_decoder = msgspec.json.Decoder(Output | Heartbeat | Ended)


def decode_message(line: str) -> Output | Heartbeat | Ended | None:
    """The message on a line; None where the line is something else."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeError):
        return None


def describe_error(error: UserError) -> WorkerError:
    """A UserError in a form that can be sent."""
    return WorkerError(kind=type(error).__name__, what=error.what, where=error.where, why=error.why, fix=error.fix)


HEARTBEAT_TIMEOUT = 60.0  # seconds without a sign of life
SHUTDOWN_GRACE = 10.0  # seconds for the others to end by themselves
CHECKPOINT_GRACE = 25.0  # seconds for workers to save a checkpoint, once asked to stop
KEEPALIVE_INTERVAL = 2.0  # seconds between signs of life to the workers
POLL_INTERVAL = 0.2  # seconds
LAST_LINES = 5  # that are repeated from a worker that died
ExitFinder = Callable[[str], tuple[int, int] | None]  # (rank, exit code) of a worker that a line says has ended
COLORS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class WorkerStatus:
    """What is known of one worker process; times are of the monotonic clock.

    last_progress: when num_collectives last changed. ended: None while it runs, or how it says it ended (see
    `Ended`), or "exit" where the command that started it says so; exit_code: then its exit code, negative for a signal.
    reason: of `Ended`.
    """

    host: str
    last_heartbeat: float
    last_progress: float
    num_collectives: int = -1
    is_waiting: bool = False
    ended: str | None = None
    exit_code: int | None = None
    error: UserError | None = None
    reason: str = ""
    last_lines: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=LAST_LINES))


def train(job: TrainingJob, callback: TrainingCallback, command: list[str], find_exit: ExitFinder) -> None:
    """Run `train_worker` with this job in each of `job.config.workers` processes.

    command: starts them all; find_exit: sees in its output that one has ended. Raises the error that a worker raised,
    or TrainingError with the name and last lines of one that died or hung.
    """
    names = experiments.worker_hosts(job.config.workers, job.config.hosts)
    launcher = WorkerLauncher(command, names, job.config.worker_timeout, callback)
    launcher.find_exit = find_exit
    try:
        launcher.run()
    finally:
        launcher.close()


def free_ports(count: int) -> int:
    """The first of `count` consecutive ports that are free here, so that several trainings can run at once.

    Each process begins its search elsewhere: two that look at one moment would find the same ports free.
    """
    begin = FIRST_PORT + os.getpid() * PORTS_APART % (LAST_PORT - FIRST_PORT)
    for first in (*range(begin, LAST_PORT, count), *range(FIRST_PORT, begin, count)):
        with contextlib.ExitStack() as opened, contextlib.suppress(OSError):
            for port in range(first, first + count):
                opened.enter_context(socket.socket()).bind(("", port))
            return first
    raise errors.ResourceError(f"no {count} ports in a row are free", where="train.workers", fix="Use fewer workers")


class WorkerLauncher:
    """The command that starts the workers, and the workers.

    names: the workers' hosts by rank; timeout: seconds in which some worker must make progress, see `_stall_error`.
    """

    def __init__(self, command: list[str], names: list[str], timeout: float, callback: TrainingCallback) -> None:
        now = time.monotonic()
        self.workers = [WorkerStatus(name, last_heartbeat=now, last_progress=now) for name in names]
        self.timeout, self.callback, self.stop_signal = timeout, callback, 0
        self.find_exit: ExitFinder = lambda _: None
        self.launcher_lines: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        self._selector = selectors.DefaultSelector()
        self._partial_lines = {}
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            self._selector.register(stream, selectors.EVENT_READ)
            self._partial_lines[stream.fileno()] = b""

    def run(self) -> None:
        """Watch until every worker has ended well; raises the error of the training otherwise."""
        last_keepalive, first_end = 0.0, None
        with DeferredSignals() as signals:
            while self._selector.get_map():
                self._read()
                now = time.monotonic()
                if signals.received and not self.stop_signal:
                    self.stop_signal = signals.received
                    self._send(b"stop\n")
                if now - last_keepalive > KEEPALIVE_INTERVAL:
                    last_keepalive = now
                    self._send(b".\n")
                ended = {worker.ended for worker in self.workers}
                if first_end is None and (None not in ended or ended - {None, "well"}):
                    first_end = now
                if first_end is not None and now - first_end > SHUTDOWN_GRACE:
                    break
                self.callback.on_workers(self.progress())
                stall = self._stall_error(now)
                if stall:
                    raise stall
            self._wait_for_checkpoint()
        if any(worker.ended != "well" for worker in self.workers):
            raise self._failure()

    def progress(self) -> list[WorkerProgress]:
        """How far each worker is."""
        return [WorkerProgress(rank, one.host, one.num_collectives) for rank, one in enumerate(self.workers)]

    def close(self) -> None:
        """Leave no process running here; workers elsewhere end when they hear nothing more."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._selector.close()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()

    def _wait_for_checkpoint(self) -> None:
        """Where a cluster ended that command together with this process, the workers are still writing a checkpoint."""
        deadline = time.monotonic() + (CHECKPOINT_GRACE if self.stop_signal else 0.0)
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                self.process.poll()
                os.killpg(self.process.pid, 0)
                time.sleep(0.1)

    def _send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            os.write(self.process.stdin.fileno(), line)

    def _read(self) -> None:
        for key, _ in self._selector.select(POLL_INTERVAL):
            data = os.read(key.fd, 65536)
            if not data:
                self._selector.unregister(key.fileobj)
                continue
            *lines, self._partial_lines[key.fd] = (self._partial_lines[key.fd] + data).split(b"\n")
            for line in lines:
                self._handle_line(line.decode(errors="replace").strip())

    def _handle_line(self, line: str) -> None:
        """Handle a line from a worker, or from the command that started it."""
        message = decode_message(line)
        if message is None or message.rank >= len(self.workers):
            self._handle_launcher_line(line)
            return
        worker = self.workers[message.rank]
        worker.last_heartbeat = time.monotonic()
        if isinstance(message, Output):
            worker.last_lines.append(message.line)
            if message.rank == 0:
                print(message.line, file=sys.stderr, flush=True)
        elif isinstance(message, Heartbeat):
            if message.num_collectives != worker.num_collectives:
                worker.last_progress = worker.last_heartbeat
            worker.num_collectives, worker.is_waiting = message.num_collectives, message.is_waiting
        else:
            worker.ended, worker.error, worker.reason = message.how, to_user_error(message), message.reason

    def _handle_launcher_line(self, line: str) -> None:
        exited = self.find_exit(line)
        if exited:
            worker = self.workers[exited[0]]
            worker.ended, worker.exit_code = worker.ended or "exit", exited[1]
        elif line:
            self.launcher_lines.append(COLORS.sub("", line))

    def _stall_error(self, now: float) -> TrainingError | None:
        """An error that names a silent worker; or, when none has made progress for `timeout`, one that others await."""
        for rank, worker in enumerate(self.workers):
            if worker.ended is None and now - worker.last_heartbeat > HEARTBEAT_TIMEOUT:
                return self._error(rank, f"has shown no sign of life for {HEARTBEAT_TIMEOUT:.0f} seconds")
        running = [rank for rank, worker in enumerate(self.workers) if worker.ended is None]
        if running and all(now - self.workers[rank].last_progress > self.timeout for rank in running):
            late = [rank for rank in running if not self.workers[rank].is_waiting] or running
            return self._error(late[0], f"has not moved on for {self.timeout:.0f} seconds (train.worker_timeout)")
        return None

    def _failure(self) -> UserError:
        """Why the training ended: a worker's own error before a death, and a death before what it did to others."""
        for worker in self.workers:
            if worker.error:
                return worker.error
        if self.stop_signal:
            return StoppedError("the training was stopped; it resumes from the last checkpoint")
        for ended in ("defect", "exit", None, "lost"):
            for rank, worker in enumerate(self.workers):
                if worker.ended != ended:
                    continue
                if worker.exit_code is not None and worker.exit_code < 0:
                    return self._error(rank, f"was killed by {_signal_name(-worker.exit_code)}")
                code = worker.exit_code
                what = f"ended with exit code {code}" if code else "did not end well"
                return self._error(rank, what, self._reason() if ended in (None, "lost") else "")
        raise AssertionError("all ended well")

    def _reason(self) -> str:
        """What the first worker that lost another says of it."""
        reasons = ((rank, one.reason) for rank, one in enumerate(self.workers) if one.reason)
        return next((f'; worker {rank} lost the others: "{reason}"' for rank, reason in reasons), "")

    def _error(self, rank: int, what: str, reason: str = "") -> TrainingError:
        worker = self.workers[rank]
        lines = list(worker.last_lines) or list(self.launcher_lines)
        output = f'; its last lines: "{" / ".join(lines)}"' if lines else "; it has printed nothing"
        return TrainingError(
            f"worker {rank} of {len(self.workers)} ({worker.host}) {what}{output}{reason}",
            where="train.workers",
            fix="Repair that machine or take it out of train.hosts, and run snakemake again: with as many workers as "
            "before it resumes from the last checkpoint",
        )


def to_user_error(message: Ended) -> UserError | None:
    """The error that ended a worker, as it was raised there; None where it ended otherwise."""
    if message.error is None:
        return None
    error = message.error
    kind: type[UserError] = getattr(errors, error.kind, TrainingError)
    return kind(error.what, where=error.where, why=error.why, fix=error.fix)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
