"""Runs a trainer's process: hands it a request, follows its events, hands signals on, and says what went wrong."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal, NamedTuple

import msgspec

from snaketune.errors import ResourceError, StoppedError, TrainingError, UserError, message_to_resource_error
from snaketune.files import Record
from snaketune.train.checkpoints import DeferredSignals, interruption_error
from snaketune.trainers import environment
from snaketune.trainers.description import TrainerDescription

REQUEST = "request.json"
POLL_SECONDS = 0.1
LAST_WORDS = 400  # characters of a trainer's output in a message
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ERROR_LINE = re.compile(r"(?:[\w.]+\.)?\w*(?:Error|Exception)\b")


class TrainerRequest(Record, frozen=True, kw_only=True):
    """request.json, what a driver is handed. Paths are absolute.

    base: the model's folder; folder: where the trainer works, kept for a later start; train_rows, valid_rows: files of
    rows, `input_ids` and `labels` a line; visits: indices of training rows in the order in which they are to be seen,
    over all epochs; settings: in the trainer's own words.
    """

    base: str
    folder: str
    train_rows: str
    valid_rows: str
    visits: list[int]
    steps: int
    dtype: str
    seed: int
    settings: dict[str, object]


class TrainerEvent(Record, frozen=True, kw_only=True):
    """A line that a driver appends to events.jsonl.

    begin: training starts at `step`; step: an optimizer step is done, with its mean loss in nats a token; validation:
    the trainer's own validation loss; stopped: it ended early as it was asked to; done: what it leaves. seconds: since
    the training began; cpu_seconds and memory_bytes are the driver's own, memory at its peak. format: of the adapter's
    folder.
    """

    event: Literal["begin", "step", "validation", "stopped", "done"]
    seconds: float
    cpu_seconds: float
    memory_bytes: int
    step: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    resumable: bool = False
    best_step: int = 0
    adapter: str | None = None
    format: Literal["peft", "mlx-lm"] = "peft"
    blas: str | None = None
    device: str | None = None
    versions: dict[str, str] = msgspec.field(default_factory=dict)


class Usage(NamedTuple):
    """What a process and its children took: CPU-seconds, and bytes of the largest one's memory at its peak."""

    cpu_seconds: float
    peak_resident_bytes: int


class Outcome(NamedTuple):
    """The last event of a training that ended well, and what its process took."""

    done: TrainerEvent
    usage: Usage


def run(description: TrainerDescription, folder: Path, take: Callable[[TrainerEvent], None]) -> Outcome:
    """Run a trainer on the request in `folder` and hand each of its events to `take`; its output goes to trainer.log.

    A first SIGINT or SIGTERM asks it to end. Raises TrainingError with its last words where it fails or was ended,
    ResourceError where it is not installed or the machine lacked something.
    """
    python = environment.python_of(description.name)
    events, log = folder / "events.jsonl", folder / "trainer.log"
    events.write_bytes(b"")
    command = [str(python), str(environment.driver_of(description.name)), str(folder / REQUEST), str(events)]
    usage: Usage | None = None
    last: TrainerEvent | None = None
    with DeferredSignals() as signals, open(events, "rb") as source, _started(command, log, description) as process:
        lines, stop_sent = LineReader(source), False
        while usage is None:
            usage = _wait(process)
            for line in lines.new():
                last = msgspec.json.decode(line, type=TrainerEvent)
                take(last)
            if signals.received and not stop_sent:
                stop_sent = True
                process.send_signal(signal.SIGTERM)
    if last is not None and last.event == "done" and process.returncode == 0:
        return Outcome(last, usage)
    if signals.received:
        raise _interrupted(description, last)
    raise failure(description, process.returncode, log)


class LineReader:
    """The lines of a file that another process appends to, each once and whole."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._rest = source, b""

    def new(self) -> Iterator[bytes]:
        """The lines that have come since the last call."""
        *lines, self._rest = (self._rest + self._source.read()).split(b"\n")
        yield from lines


@contextlib.contextmanager
def _started(command: list[str], log: Path, description: TrainerDescription) -> Iterator[subprocess.Popen[bytes]]:
    """A trainer's process in a session of its own, of which nothing is left when the block ends."""
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=environment.variables(description, log.parent),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            process.wait()


def _wait(process: subprocess.Popen[bytes]) -> Usage | None:
    """What the process took where it has ended; None after a moment where it runs."""
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if not pid:
        time.sleep(POLL_SECONDS)
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def _interrupted(description: TrainerDescription, last: TrainerEvent | None) -> StoppedError:
    """What to raise after a signal; a trainer that saved a checkpoint says so in its last event."""
    if last is not None and last.event == "stopped" and last.resumable:
        return interruption_error(last.step)
    step = last.step if last is not None else 0
    return StoppedError(
        f"the training was stopped after step {step}",
        where=description.title,
        why="It resumes from its last checkpoint"
        if description.resumes
        else f"{description.title} cannot resume, so it starts from the first step",
    )


def failure(description: TrainerDescription, code: int, log: Path) -> UserError:
    """What to raise where a trainer failed by itself, with its last words; code: its exit code."""
    text = ESCAPES.sub("", log.read_text(errors="replace"))
    if code == -signal.SIGKILL:
        return ResourceError(
            f"{description.title} was killed, most likely because memory ran out",
            where=str(log),
            fix="Lower train.batch_size or data.max_length, or set train.gradient_checkpointing: true",
        )
    words = last_words(text)
    known = message_to_resource_error(words, log.parent)
    return known or TrainingError(
        f"{description.title} stopped with exit code {code}: {words}",
        where=str(log),
        why="This project only starts it; what it says there is its own",
        fix="Look at the end of that file; train.trainer: builtin trains the same rows without it",
    )


def last_words(text: str) -> str:
    """The last line of an output that names an error, otherwise its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if ERROR_LINE.match(line)]
    return (named or lines or ["it said nothing"])[-1][:LAST_WORDS]
