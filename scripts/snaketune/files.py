"""Files that are either whole or absent: atomic writes, JSON and JSON Lines, hashes, and a lock that dies with us."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from snaketune.errors import BusyError

StrPath = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: StrPath) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success fsync it and move it into place, on failure remove it."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: StrPath, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def copy(source: StrPath, target: StrPath) -> None:
    """Copy a file's content atomically."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def dumps(value: Any) -> str:
    """JSON as this project writes it inside lines: sorted keys, no ASCII escapes, NaN refused."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)


def write_json(path: StrPath, value: Any) -> None:
    """Write indented JSON atomically; keys keep their order, NaN and infinity are refused."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def read_json(path: StrPath) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


@contextlib.contextmanager
def writing_jsonl(path: StrPath) -> Iterator[IO[bytes]]:
    """Open a JSON Lines file for writing bytes; it appears under its name only when the block ends well."""
    with replacing(path) as temporary, open(temporary, "wb", buffering=1 << 20) as out:
        yield out


def write_jsonl(path: StrPath, rows: Iterable[Any]) -> int:
    """Write one JSON value a line, atomically; returns the number of lines."""
    count = 0
    with writing_jsonl(path) as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            count += 1
    return count


def read_jsonl(path: StrPath) -> Iterator[Any]:
    """The values of a JSON Lines file that this project wrote."""
    with open(path, "rb", buffering=1 << 20) as lines:
        for line in lines:
            yield json.loads(line)


def sha256(path: StrPath) -> str:
    """Hex SHA-256 of a file's content."""
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextlib.contextmanager
def holding(path: StrPath, doing: str) -> Iterator[None]:
    """Hold an exclusive `flock` on `path` (made if need be) while the block runs.

    The kernel frees it when the process dies, however it dies, so a stale lock cannot exist. Raises BusyError naming
    the holder's process id.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise BusyError(
                f"another process (pid {holder}) is already {doing}",
                where=str(target.parent),
                why="Two writers in one place would spoil each other's files",
                mend=f"Wait for it, or end it with `kill {holder}`, and run snakemake again",
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
