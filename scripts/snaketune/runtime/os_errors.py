"""What the machine's own failures mean, in a person's words: a full disk, a read-only folder, no memory left.

They reach a step as many kinds of exception, for each library that writes files words them in its own way.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from snaketune.errors import ResourceError

FULL = re.compile(r"no space left|disk quota|file too large|os error (27|28|122)\b|unable to write \d+ bytes", re.I)
SHUT = re.compile(r"read-only file system|permission denied|operation not permitted|os error (1|13|30)\b", re.I)
MEMORY = re.compile(r"bad_alloc|cannot allocate memory|unable to allocate|failed to allocate|os error 12\b", re.I)
FULL_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SHUT_CODES = (errno.EROFS, errno.EACCES, errno.EPERM)


def explained(error: BaseException, log: str | Path) -> ResourceError | None:
    """The error to show for a failure of the machine, or None for anything else; log: that of the step that it met."""
    code = error.errno if isinstance(error, OSError) else None
    place = getattr(error, "filename", None) or Path(log).parent.parent
    if code in FULL_CODES:
        return _full(place)
    if code in SHUT_CODES:
        return _shut(place)
    if code == errno.ENOMEM or isinstance(error, MemoryError):
        return _memory(place)
    return in_words(str(error), place)


def in_words(words: str, place: str | Path) -> ResourceError | None:
    """The same for what a library or another program said; place: what it was about."""
    for pattern, told in ((FULL, _full), (MEMORY, _memory), (SHUT, _shut)):
        if pattern.search(words):
            return told(place)
    return None


def _full(place: str | Path) -> ResourceError:
    return ResourceError(
        "the disk is full",
        where=str(place),
        why="What this step was writing is removed; what was finished before it is kept",
        fix="Make room (plan.json says how much a run needs) and run snakemake again",
    )


def _memory(place: str | Path) -> ResourceError:
    return ResourceError(
        "there is not enough memory",
        where=str(place),
        fix="Close other programs, or lower train.batch_size, data.max_length or threads, and run snakemake again",
    )


def _shut(place: str | Path) -> ResourceError:
    return ResourceError(
        "this cannot be read or written",
        where=str(place),
        fix="Give yourself the right to it (chmod, chown), or mount it writable, and run snakemake again",
    )
