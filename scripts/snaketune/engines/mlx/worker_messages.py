"""Messages from a worker process to its launcher: lines of JSON on standard output, each with the worker's rank."""

from __future__ import annotations

import msgspec

from snaketune.errors import UserError


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
    """The last message. how: "well", "error" (with the error), "lost" (another process is gone) or "defect"."""

    how: str
    error: WorkerError | None = None


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
