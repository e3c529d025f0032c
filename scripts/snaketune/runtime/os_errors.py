"""Turns failures of the machine into a ResourceError: a full disk, a read-only folder, no memory left.

They reach a step as many kinds of exception, since each library that writes files has messages of its own.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from snaketune.errors import ResourceError

DISK_FULL = re.compile(
    r"no space left|disk quota|file too large|os error (27|28|122)\b|unable to write \d+ bytes", re.I
)
NOT_WRITABLE = re.compile(r"read-only file system|permission denied|operation not permitted|os error (1|13|30)\b", re.I)
OUT_OF_MEMORY = re.compile(
    r"bad_alloc|cannot allocate memory|unable to allocate|failed to allocate|os error 12\b", re.I
)
DISK_FULL_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE_CODES = (errno.EROFS, errno.EACCES, errno.EPERM)


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
    return from_message(str(error), place)


def from_message(message: str, place: str | Path) -> ResourceError | None:
    """Return the same for the message of a library or another program; place: the file or folder in question."""
    for pattern, error in ((DISK_FULL, _disk_full), (OUT_OF_MEMORY, _out_of_memory), (NOT_WRITABLE, _not_writable)):
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


def _not_writable(place: str | Path) -> ResourceError:
    return ResourceError(
        "this file or folder cannot be read or written",
        where=str(place),
        fix="Change its permissions (chmod, chown), or mount it writable, and run snakemake again",
    )
