"""Journal of outputs: size, time and SHA-256 of what each step left, so that an output changed since is not trusted.

Snakemake records what an output was made from, not what it is. As in git's index, an unchanged size and time spare the
reading of a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from snaketune.files import StrPath, dumps, sha256

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
