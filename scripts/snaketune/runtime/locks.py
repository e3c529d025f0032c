"""Keeps a run's files whole: locks of folders and steps, and a journal of the outputs that each step left.

A lock is an `flock` on a small file that holds the pid, host and task of its holder. The kernel frees it when its
process dies, however it dies. A holder clears the file when it exits cleanly, so leftover content identifies a process
that died.

The journal holds size, time and SHA-256 of each output, so that an output changed since is not trusted: Snakemake
records what an output was made from, not what it is. As in git's index, an unchanged size and time spare the reading.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import msgspec

from snaketune.errors import BusyError, ResourceError
from snaketune.files import StrPath, dumps, sha256

JOURNAL = Path(".made", "outputs.jsonl")
"""The journal of the outputs below a folder of results."""
SNAKEMAKE_TIMESTAMP = ".snakemake_timestamp"  # lies in every folder that is an output


class OutputState(msgspec.Struct, frozen=True, kw_only=True):
    """Size in bytes and time of the last change in nanoseconds; of a folder, the sum, the latest, and its files."""

    bytes: int
    changed_ns: int
    files: list[str]  # relative to the path


class JournalLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of results/.made/outputs.jsonl; without a digest, a step has begun to make the path again."""

    path: str
    bytes: int = 0
    changed_ns: int = 0
    files: list[str] = msgspec.field(default_factory=list)
    sha256: str = ""

    @property
    def state(self) -> OutputState:
        return OutputState(bytes=self.bytes, changed_ns=self.changed_ns, files=self.files)


class OutputJournal:
    """An append-only JSON Lines file; the last line about a path counts."""

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self.lines: dict[str, JournalLine] = {}
        self._touched: dict[str, JournalLine] = {}  # new time, and the same content when it was read
        decode = msgspec.json.Decoder(JournalLine).decode
        with contextlib.suppress(OSError):
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(msgspec.DecodeError):  # cut off by a kill
                    entry = decode(line)
                    self.lines[entry.path] = entry

    def add(self, paths: Iterable[StrPath]) -> None:
        """Record what lies at these paths now; paths without a file are skipped."""
        self._append([_entry(path, stat_summary(path), digest(path)) for path in paths if Path(path).exists()])

    def mark_in_progress(self, paths: Iterable[StrPath]) -> None:
        """Record that a step begins to make these: what it leaves when it is killed is no person's change."""
        self._append([JournalLine(path=str(path)) for path in paths if self._recorded(path)])

    def is_unmodified(self, path: StrPath) -> bool:
        """Return whether `path` is recorded and holds what its step left there."""
        return self._recorded(path) is not None and not self.is_modified(path)

    def is_modified(self, path: StrPath) -> bool:
        """Return whether `path` is recorded and holds something else than its step left there."""
        entry = self._recorded(path)
        if entry is None:
            return False
        now = stat_summary(path)
        if entry.state == now:
            return False
        if entry.sha256 != digest(path):
            return True
        self._touched[str(path)] = _entry(path, now, entry.sha256)
        return False

    def digest(self, path: StrPath) -> str:
        """Return the SHA-256 of a path, from here where nothing there has changed since."""
        entry = self._recorded(path)
        return entry.sha256 if entry and entry.state == stat_summary(path) else digest(path)

    def save_refreshed_mtimes(self) -> None:
        """Record the new times of files that were read and found the same; where that fails they are read again."""
        with contextlib.suppress(OSError):
            self._append(list(self._touched.values()))

    def _recorded(self, path: StrPath) -> JournalLine | None:
        entry = self.lines.get(str(path))
        return entry if entry and entry.sha256 else None

    def _append(self, entries: list[JournalLine]) -> None:
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(dumps(entry) + "\n" for entry in entries).encode()
        with open(self.path, "ab+") as out:
            if out.tell():
                out.seek(-1, os.SEEK_END)
                lines = lines if out.read() == b"\n" else b"\n" + lines
            out.write(lines)
            out.flush()
            os.fsync(out.fileno())
        for entry in entries:
            self.lines[entry.path] = entry
            self._touched.pop(entry.path, None)


def _entry(path: StrPath, state: OutputState, content: str) -> JournalLine:
    return JournalLine(
        path=str(path), bytes=state.bytes, changed_ns=state.changed_ns, files=state.files, sha256=content
    )


def stat_summary(path: StrPath) -> OutputState:
    """Return size, time and files of a path without reading it."""
    files = list_files(path)
    stats = [file.stat() for file in files]
    return OutputState(
        bytes=sum(stat.st_size for stat in stats),
        changed_ns=max((stat.st_mtime_ns for stat in stats), default=0),
        files=[str(file.relative_to(path)) for file in files],
    )


def digest(path: StrPath) -> str:
    """Return the SHA-256 of a file; of a folder, that of the names and digests of its files."""
    if not Path(path).is_dir():
        return sha256(path)
    named = [(str(file.relative_to(path)), sha256(file)) for file in list_files(path)]
    return hashlib.sha256(repr(named).encode()).hexdigest()


def list_files(path: StrPath) -> list[Path]:
    """Return the files at a path, sorted."""
    if not Path(path).is_dir():
        return [Path(path)]
    return sorted(file for file in Path(path).rglob("*") if file.is_file() and file.name != SNAKEMAKE_TIMESTAMP)


def backup_modified(path: StrPath) -> Path:
    """Rename what lies at `path` after its content, so that it survives the step that makes `path` again."""
    target = Path(f"{path}.edited-{digest(path)[:8]}")
    if not target.exists():
        os.replace(path, target)
    return target


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
