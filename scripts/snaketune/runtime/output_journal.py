"""What each step made, by content: a result that was changed since, or that no record speaks for, is not trusted.

Snakemake remembers what a step was made from, not what it made. The journal beside its records holds one line for each
output (size, time of last change, SHA-256); as in git's index, size and time spare the reading of what was not touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snaketune.files import StrPath, dumps, sha256

FORGOTTEN: dict[str, Any] = {}  # stands in place of what was recorded
BY_SNAKEMAKE = ".snakemake_timestamp"  # lies in every folder that is an output


class Journal:
    """An append-only JSON Lines file; the last line about a path holds."""

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self.lines: dict[str, dict[str, Any]] = {}
        self._retimed: dict[str, dict[str, Any]] = {}  # what was found to be the same by reading it
        with contextlib.suppress(OSError):
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # torn by a kill
                    one = json.loads(line)
                    self.lines[one.pop("path")] = one

    def add(self, paths: Iterable[StrPath]) -> None:
        """Record what lies at these paths now; paths without a file are passed over."""
        self._append({str(path): seen(path) | {"sha256": digest(path)} for path in paths if Path(path).exists()})

    def forget(self, paths: Iterable[StrPath]) -> None:
        """A step begins to make these: killed before it ends, it must not look like a person who changed them."""
        self._append({str(path): FORGOTTEN for path in paths if self.lines.get(str(path))})

    def _append(self, found: dict[str, dict[str, Any]]) -> None:
        if found:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines = "".join(dumps({"path": path} | one) + "\n" for path, one in found.items()).encode()
            with open(self.path, "ab+") as out:
                if out.tell():
                    out.seek(-1, os.SEEK_END)
                    lines = lines if out.read() == b"\n" else b"\n" + lines
                out.write(lines)
                out.flush()
                os.fsync(out.fileno())
            self.lines |= found
            self._retimed = {path: one for path, one in self._retimed.items() if path not in found}

    def knows(self, path: StrPath) -> bool:
        """Whether a line speaks of what lies at `path`: a step left it there, and nobody changed it since."""
        return bool(self.lines.get(str(path))) and not self.changed(path)

    def changed(self, path: StrPath) -> bool:
        """Whether what lies at `path` is something else than its step left there."""
        line = self.lines.get(str(path))
        if not line:
            return False
        now = seen(path)
        if line.items() >= now.items():
            return False
        if line["sha256"] != digest(path):
            return True
        self._retimed[str(path)] = line | now
        return False

    def settle(self) -> None:
        """Record the times of what had other times and the same content, so that it need not be read again.

        Where that cannot be written it will be read again, and no more.
        """
        with contextlib.suppress(OSError):
            self._append(self._retimed)


def seen(path: StrPath) -> dict[str, Any]:
    """Size in bytes and time of last change in nanoseconds; of a folder, the sum, the latest, and its files' names."""
    files = contents(path)
    found = [file.stat() for file in files]
    return {
        "bytes": sum(one.st_size for one in found),
        "changed_ns": max((one.st_mtime_ns for one in found), default=0),
        "files": [str(file.relative_to(path)) for file in files],
    }


def digest(path: StrPath) -> str:
    """SHA-256 of a file; of a folder, of the names and digests of its files."""
    if not Path(path).is_dir():
        return sha256(path)
    named = [(str(file.relative_to(path)), sha256(file)) for file in contents(path)]
    return hashlib.sha256(repr(named).encode()).hexdigest()


def contents(path: StrPath) -> list[Path]:
    """The files at a path, in order."""
    if not Path(path).is_dir():
        return [Path(path)]
    return sorted(file for file in Path(path).rglob("*") if file.is_file() and file.name != BY_SNAKEMAKE)


def keep_aside(path: StrPath) -> Path:
    """Rename what lies at `path` after its content, so that it survives the step that makes `path` again."""
    target = Path(f"{path}.edited-{digest(path)[:8]}")
    if not target.exists():
        os.replace(path, target)
    return target
