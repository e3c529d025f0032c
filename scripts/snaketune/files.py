"""Files that are either whole or absent: atomic writes, JSON, JSON Lines and hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar, overload

import msgspec

from snaketune.errors import DataError

StrPath = str | os.PathLike[str]
T = TypeVar("T")
HASHED_AT_ONCE = 1 << 24  # bytes between two reports of progress
TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")  # as named by `temporary_name`


def temporary_name(target: Path) -> Path:
    """The name beside `target` under which this process makes a file or folder before moving it into place."""
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


@contextlib.contextmanager
def scratch(beside: StrPath) -> Iterator[Path]:
    """Yield an empty folder beside the file `beside`, for the duration of the block."""
    folder = temporary_name(Path(beside))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder near `target`; on success it takes the target's place, on failure it is removed."""
    with scratch(target) as temporary:
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)


def remove_abandoned(folder: StrPath) -> None:
    """Remove what processes that were killed left half-made in `folder` and below it."""
    for path in Path(folder).rglob(".*.tmp"):
        named = TEMPORARY.fullmatch(path.name)
        if named and not _lives(int(named[1])):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another person's
    return True


@contextlib.contextmanager
def replacing(path: StrPath) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success fsync it and move it into place, on failure remove it."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(target)
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


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the typed records in `snaketune.contracts`; the order of fields is the order of keys in the file.

    `kw_only` is not inherited: each record says `kw_only=True` itself.
    """


def _to_json(value: Any) -> Any:
    """Convert what the `json` module does not know: records, and the scalars of numpy."""
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value, enc_hook=_to_json)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def dumps(value: Any) -> str:
    """JSON as this project writes it inside lines: sorted keys, no ASCII escapes, NaN refused."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False, default=_to_json)


def write_json(path: StrPath, value: Any) -> None:
    """Write indented JSON atomically; keys and fields keep their order, NaN and infinity are refused."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False, default=_to_json) + "\n")


@overload
def read_json(path: StrPath) -> Any: ...
@overload
def read_json(path: StrPath, type: type[T]) -> T: ...
def read_json(path: StrPath, type: Any = None) -> Any:
    """Read a JSON file that this project wrote; type: the record that it holds. An unknown field is refused."""
    content = Path(path).read_bytes()
    if type is None:
        return json.loads(content)
    try:
        return msgspec.json.decode(content, type=type)
    except msgspec.DecodeError as error:
        raise _unexpected_content(path, type, error) from None


def _unexpected_content(where: StrPath, type: Any, error: Exception) -> DataError:
    name = getattr(type, "__name__", str(type))
    return DataError(
        f"the file does not hold a {name} of this version: {error}",
        where=os.fspath(where),
        why="Another version may have written it, or it was edited",
        fix="Remove the file and run snakemake again, which makes it anew",
    )


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
            out.write(json.dumps(row, ensure_ascii=False, allow_nan=False, default=_to_json).encode() + b"\n")
            count += 1
    return count


@overload
def read_jsonl(path: StrPath) -> Iterator[Any]: ...
@overload
def read_jsonl(path: StrPath, type: type[T]) -> Iterator[T]: ...
def read_jsonl(path: StrPath, type: Any = None) -> Iterator[Any]:
    """Read a JSON Lines file that this project wrote, value by value; type: the record on each line."""
    decode = json.loads if type is None else msgspec.json.Decoder(type).decode
    with open(path, "rb", buffering=1 << 20) as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield decode(line)
            except msgspec.DecodeError as error:
                raise _unexpected_content(f"{os.fspath(path)}:{number}", type, error) from None


def write_safetensors(
    path: StrPath, dtype: str, shapes: dict[str, tuple[int, ...]], tensors: Iterable[tuple[str, Iterable[Any]]]
) -> str:
    """Write a safetensors file piece by piece and return its hex SHA-256, which is taken on the way.

    dtype: the format's name for the one type of all tensors (F16, BF16); shapes: of all, in the order in which
    `tensors` gives their names and contents (pieces of each, buffers of 16-bit numbers).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, "wb") as out:
        for part in (len(text).to_bytes(8, "little"), text):
            out.write(part)
            digest.update(part)
        start = out.tell()
        for name, pieces in tensors:
            for piece in pieces:
                buffer = memoryview(piece).cast("B")
                out.write(buffer)
                digest.update(buffer)
            assert out.tell() - start == header[name]["data_offsets"][1], name
    return digest.hexdigest()


def sha256(path: StrPath, on_read: Callable[[int], object] | None = None) -> str:
    """Hex SHA-256 of a file's content; on_read: is called with the number of bytes of each part that was read."""
    with open(path, "rb") as content:
        if on_read is None:
            return hashlib.file_digest(content, "sha256").hexdigest()
        found = hashlib.sha256()
        while part := content.read(HASHED_AT_ONCE):
            found.update(part)
            on_read(len(part))
        return found.hexdigest()


def in_shards(sizes: Mapping[str, int], shard: int) -> Iterator[list[str]]:
    """Yield the names, in their order, in groups of at most `shard` bytes; a name that is larger stands alone."""
    group: list[str] = []
    held = 0
    for name, size in sizes.items():
        if group and held + size > shard:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group
