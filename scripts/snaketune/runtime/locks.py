"""Locks of folders and steps: an `flock` on a small file that holds the pid, host and task of its holder.

The kernel frees an flock when its process dies, however it dies. If flock succeeds, the lock is free. A holder clears
the file when it exits cleanly, so leftover content identifies a process that died.
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
class LockHolder:
    """A process that holds a lock, or died while it did."""

    pid: int
    host: str
    task: str  # what it does, to follow "is": "training in ..."

    def __str__(self) -> str:
        return f"pid {self.pid}" if self.host == socket.gethostname() else f"pid {self.pid} on {self.host}"


@contextlib.contextmanager
def hold_lock(path: str | os.PathLike[str], task: str) -> Iterator[LockHolder | None]:
    """Hold the lock at `path` while the block runs; yields the process that died while holding it, if any.

    task: what the holder does, to follow "is". Raises BusyError naming the process that holds it, and ResourceError
    where files cannot be written or locked.
    """
    target = Path(path)
    with _opened(target) as handle:
        if not _try_lock(handle, target):
            raise busy_error(_holder(handle), target)
        dead = _holder(handle)
        try:
            _write(handle, json.dumps(asdict(LockHolder(os.getpid(), socket.gethostname(), task))))
        except OSError as error:
            raise _unusable(target, error) from None
        try:
            yield dead
        finally:
            with contextlib.suppress(OSError):  # a disk that is full or gone: closing the file frees the lock
                _write(handle, "")


def wait_until_free(paths: Iterable[Path]) -> None:
    """Wait until nobody holds any of these locks; stderr says first who holds them."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as handle:
            if not _try_lock(handle, path):
                holder = _holder(handle)
                who, task = (str(holder), holder.task) if holder else (str(path), "at work")
                end = f" To stop it: kill {holder.pid}" if holder else ""
                print(
                    f"snaketune: a job of a killed run ({who}) is still {task}; waiting for it.{end}",
                    file=sys.stderr,
                    flush=True,
                )
                fcntl.flock(handle, fcntl.LOCK_SH)


def recorded_holder(path: Path) -> LockHolder | None:
    """Return the process that the file names, which may have died; None if there is none."""
    with contextlib.suppress(OSError), open(path, "rb") as handle:
        return _holder(handle)
    return None


def _opened(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a+b", buffering=0)  # what cannot be written must not be tried again when it is closed
    except OSError as error:
        raise _unusable(path, error) from None


def _try_lock(handle: IO[bytes], path: Path) -> bool:
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
                why="Two runs at once would corrupt each other's files unnoticed",
                fix="Mount it with flock (Lustre: the option `flock`), or link results to a disk that has it",
            ) from None
        raise
    return True


def _holder(handle: IO[bytes]) -> LockHolder | None:
    """Return the holder that the file names; None if it is empty or incomplete."""
    handle.seek(0)
    try:
        return LockHolder(**json.loads(handle.read()))
    except (ValueError, TypeError):
        return None


def _write(handle: IO[bytes], text: str) -> None:
    handle.seek(0)
    handle.truncate()
    handle.write(text.encode())


def busy_error(holder: LockHolder | None, path: Path) -> BusyError:
    """Return the error for a second writer."""
    who, task = (f" ({holder})", holder.task) if holder else ("", "at work")
    end = f", or end it with `kill {holder.pid}`," if holder else ""
    return BusyError(
        f"another process{who} is already {task}",
        where=str(path.parent),
        why="Two writers in one place would corrupt each other's files",
        fix=f"Wait for it{end} and run snakemake again",
    )


def _unusable(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"nothing can be written here ({error.strerror})",
        where=str(path.parent),
        fix="Make room on the disk, or make the folder writable, and run snakemake again",
    )
