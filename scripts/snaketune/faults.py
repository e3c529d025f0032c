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


def explained(error: BaseException, where: str | Path) -> ResourceError | None:
    """The error to show for a failure of the machine, or None for anything else; `where`: what was being written."""
    code = error.errno if isinstance(error, OSError) else None
    named = getattr(error, "filename", None)
    place = str(named or Path(where).parent.parent)
    words = str(error)
    if code in FULL_CODES or FULL.search(words):
        return ResourceError(
            "the disk is full",
            where=place,
            why="What this step was writing is removed; what was finished before it is kept",
            mend="Make room (plan.json says how much a run needs) and run snakemake again",
        )
    if isinstance(error, MemoryError) or code == errno.ENOMEM or MEMORY.search(words):
        return ResourceError(
            "there is not enough memory",
            where=place,
            mend="Close other programs, or lower train.batch_size, data.max_length or threads, and run snakemake again",
        )
    if code in SHUT_CODES or SHUT.search(words):
        return ResourceError(
            "this cannot be read or written",
            where=place,
            mend="Give yourself the right to it (chmod, chown), or mount it writable, and run snakemake again",
        )
    return None
