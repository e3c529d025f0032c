"""What a person can fix, as exceptions: raised where the mistake is known, shown in one place (`step.py`).

A `UserError` carries the four things a person needs at midnight: what is wrong, where, why it matters, what to do.
Anything else that escapes a step is a defect of ours and keeps its traceback.

A full disk, a read-only folder and a lack of memory reach a step as many kinds of exception, since each library that
writes files has messages of its own; `to_resource_error` turns them all into a ResourceError.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

COMMAND_VARIABLE = "SNAKETUNE_COMMAND"  # in the environment: what a person typed; make sets it where it was make
DISK_FULL = re.compile(
    r"no space left|disk quota|file too large|os error (27|28|122)\b|unable to write \d+ bytes", re.I
)
NOT_WRITABLE = re.compile(r"read-only file system|permission denied|operation not permitted|os error (1|13|30)\b", re.I)
OUT_OF_MEMORY = re.compile(
    r"bad_alloc|cannot allocate memory|unable to allocate|failed to allocate|out of memory|os error 12\b", re.I
)
GPU_OUT_OF_MEMORY = re.compile(
    r"\b(cuda|hip|mps)\b.*out of memory|cublas_status_alloc_failed|insufficient memory.*iogpu", re.I
)
DISK_FULL_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE_CODES = (errno.EROFS, errno.EACCES, errno.EPERM)


class UserError(Exception):
    """A mistake in the input, the settings or the machine that its owner can fix.

    what: one sentence, without a final full stop; where: `file:line` or a configuration key such as
    `train.learning_rate`; why: what would go wrong if it were ignored; fix: what to do now.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        sentences = [head, self.why, with_command(self.fix)]
        return " ".join(s if s.endswith((".", "!", "?", ":", "\n")) else s + "." for s in sentences if s)


def with_command(text: str) -> str:
    """Return a text in which `run snakemake again` names the whole command, without which another run would start.

    Snakemake's process leaves the command that a person typed in the environment of the steps.
    """
    command = os.environ.get(COMMAND_VARIABLE)
    return re.sub(r"(?i)\b(run) snakemake again", rf"\1 `{command}` again", text) if command else text


def typed_command(words: Sequence[str]) -> str:
    """Return the command that a person typed; words: those of snakemake, which make may have started."""
    return os.environ.get(COMMAND_VARIABLE) or shlex.join(["snakemake", *words])


class ConfigError(UserError):
    """A key, a type or a value of the configuration."""


class DataError(UserError):
    """A data file, its rows or their splits."""


class ModelError(UserError):
    """A base model: missing, unreadable, refused by its hub, or of a kind that cannot be used."""


class ResourceError(UserError):
    """The machine: memory, disk, a missing program, no network."""


class TrainingError(UserError):
    """A training that cannot go on: non-finite values, a broken checkpoint, nothing to train on."""


class StoppedError(TrainingError):
    """A training that a person's signal ended in order, and that goes on from there."""


class PackageError(UserError):
    """A product that is not the model that was trained: a failed conversion or fidelity gate."""


class EvaluationError(UserError):
    """An evaluation that cannot be made or may not be compared."""


class BusyError(UserError):
    """Another process is writing to the same place."""


class NoGoError(UserError):
    """The pilot's decision: a criterion was not met, and the configuration says to stop then."""


def to_resource_error(error: BaseException, log: str | Path) -> ResourceError | None:
    """Return the error for a failure of the machine, None for anything else; log: that of the failed step."""
    code = error.errno if isinstance(error, OSError) else None
    place = getattr(error, "filename", None) or Path(log).parent.parent
    if code in DISK_FULL_CODES:
        return _disk_full(place)
    if code in NOT_WRITABLE_CODES:
        return _not_writable(place)
    if code == errno.ENOMEM or isinstance(error, MemoryError):
        return _out_of_memory(place)
    return message_to_resource_error(str(error), place)


def message_to_resource_error(message: str, place: str | Path) -> ResourceError | None:
    """Return the same for the message of a library or another program; place: the file or folder in question."""
    kinds = (
        (DISK_FULL, _disk_full),
        (GPU_OUT_OF_MEMORY, _out_of_gpu_memory),
        (OUT_OF_MEMORY, _out_of_memory),
        (NOT_WRITABLE, _not_writable),
    )
    for pattern, error in kinds:
        if pattern.search(message):
            return error(place)
    return None


def _disk_full(place: str | Path) -> ResourceError:
    return ResourceError(
        "the disk is full",
        where=str(place),
        why="What this step was writing is removed; what was finished before it is kept",
        fix="Make room (plan.json says how much a run needs) and run snakemake again",
    )


def _out_of_memory(place: str | Path) -> ResourceError:
    return ResourceError(
        "there is not enough memory",
        where=str(place),
        fix="Close other programs, or lower train.batch_size, data.max_length or threads, and run snakemake again",
    )


def _out_of_gpu_memory(place: str | Path) -> ResourceError:
    return ResourceError(
        "there is not enough memory on the GPU",
        where=str(place),
        fix="Close other programs that compute on it (nvidia-smi lists those on an NVIDIA card), or lower "
        "train.batch_size or data.max_length, or choose a smaller model.base, and run snakemake again",
    )


def _not_writable(place: str | Path) -> ResourceError:
    return ResourceError(
        "this file or folder cannot be read or written",
        where=str(place),
        fix="Change its permissions (chmod, chown), or mount it writable, and run snakemake again",
    )
