"""Who holds a folder or a step: an `flock` on a small file, and in the file the holder's pid, host and work.

The kernel frees an flock when its process dies, however it dies. So a lock that can be taken is free, whatever its file
says; and what the file still says then tells who died while holding it, for a holder that ends clears it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from snaketune.errors import BusyError, ResourceError

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock, or died while it did."""

    pid: int
    host: str
    work: str  # what it does, to follow "is": "training in ..."

    def __str__(self) -> str:
        return f"pid {self.pid}" if self.host == socket.gethostname() else f"pid {self.pid} on {self.host}"


@contextlib.contextmanager
def holding(path: str | os.PathLike[str], work: str) -> Iterator[Holder | None]:
    """Hold the lock at `path` (made if need be) while the block runs; yields who died while holding it, if anyone did.

    work: what the holder does, to follow "is". Raises BusyError naming the process that holds it, and
    ResourceError where files cannot be written or locked.
    """
    target = Path(path)
    with _opened(target) as handle:
        if not _taken(handle, target):
            raise busy(_holder(handle), target)
        dead = _holder(handle)
        try:
            _write(handle, json.dumps(asdict(Holder(os.getpid(), socket.gethostname(), work))))
        except OSError as error:
            raise _unusable(target, error) from None
        try:
            yield dead
        finally:
            with contextlib.suppress(OSError):  # a disk that is full or gone: closing the file frees the lock
                _write(handle, "")


def wait(paths: Iterable[Path]) -> None:
    """Wait until nobody holds any of these locks, saying on stderr first whom it waits for."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as handle:
            if not _taken(handle, path):
                holder = _holder(handle)
                who, work = (str(holder), holder.work) if holder else (str(path), "at work")
                end = f"; `kill {holder.pid}` would end it" if holder else ""
                print(
                    f"snaketune: {who}, left behind by a killed run, is still {work}: waiting for it{end}",
                    file=sys.stderr,
                    flush=True,
                )
                fcntl.flock(handle, fcntl.LOCK_SH)


def _opened(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a+b", buffering=0)  # what cannot be written must not be tried again when it is closed
    except OSError as error:
        raise _unusable(path, error) from None


def _taken(handle: IO[bytes], path: Path) -> bool:
    kind = fcntl.LOCK_EX if handle.writable() else fcntl.LOCK_SH
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in WITHOUT_LOCKS:
            raise ResourceError(
                "this file system does not lock files",
                where=str(path.parent),
                why="Two runs at once would spoil each other's files unseen",
                fix="Mount it with flock (Lustre: the option `flock`), or link results to a disk that has it",
            ) from None
        raise
    return True


def _holder(handle: IO[bytes]) -> Holder | None:
    """What the file says; None when it says nothing, or not (yet) something whole."""
    handle.seek(0)
    try:
        return Holder(**json.loads(handle.read()))
    except (ValueError, TypeError):
        return None


def _write(handle: IO[bytes], text: str) -> None:
    handle.seek(0)
    handle.truncate()
    handle.write(text.encode())


def busy(holder: Holder | None, path: Path) -> BusyError:
    """The error of a second writer."""
    who, work = (f" ({holder})", holder.work) if holder else ("", "at work")
    end = f", or end it with `kill {holder.pid}`," if holder else ""
    return BusyError(
        f"another process{who} is already {work}",
        where=str(path.parent),
        why="Two writers in one place would spoil each other's files",
        fix=f"Wait for it{end} and run snakemake again",
    )


def _unusable(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"nothing can be written here ({error.strerror})",
        where=str(path.parent),
        fix="Make room on the disk, or make the folder writable, and run snakemake again",
    )
