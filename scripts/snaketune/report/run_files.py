"""Reads a run's files as they are: absent, damaged or of a failed gate, and remembers which were not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from snaketune.contracts.report import JsonObject
from snaketune.files import StrPath

T = TypeVar("T")
LONE_SURROGATES = re.compile("[\ud800-\udfff]")


class RunFiles:
    """One run's folder, results/<run>.

    declared: the files that may be read, as a step's inputs name them; None reads whatever lies there. A file that an
    earlier configuration left behind is thus never mistaken for this run's.
    """

    def __init__(self, folder: StrPath, declared: Iterable[StrPath] | None = None) -> None:
        self.folder = Path(folder)
        self.name = self.folder.name
        self._declared = None if declared is None else {Path(path).resolve() for path in declared}
        self.missing: list[str] = []
        self.damaged: list[str] = []

    def path(self, relative: str) -> Path | None:
        """The file if it is there and may be read."""
        path = self.folder / relative
        return path if path.is_file() and self._may_read(path) else None

    def glob(self, pattern: str) -> list[Path]:
        """Files matching a pattern, in the order of their names."""
        return sorted(path for path in self.folder.glob(pattern) if path.is_file() and self._may_read(path))

    def json(self, relative: str) -> JsonObject | None:
        """A JSON file's object, or None; absence and damage are noted."""
        path = self.path(relative)
        if path is None:
            self.missing.append(relative)
            return None
        try:
            value = replace_lone_surrogates(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            value = None
        if not isinstance(value, dict):
            self.damaged.append(relative)
            return None
        return value

    def record(self, relative: str, type: type[T]) -> T | None:
        """As `json`, as the record that the file holds; a file of another version counts as damaged."""
        value = self.json(relative)
        if value is None:
            return None
        try:
            return msgspec.convert(value, type)
        except msgspec.ValidationError:
            self.damaged.append(relative)
            return None

    def optional_record(self, relative: str, type: type[T]) -> T | None:
        """As `record`, of a file that a run need not have."""
        return self.record(relative, type) if self.path(relative) else None

    def records(self, relative: str, type: type[T]) -> list[T]:
        """The records of a JSON Lines file, none if it is absent; reading stops at a damaged line, which is noted."""
        path = self.path(relative)
        if path is None:
            self.missing.append(relative)
            return []
        return list(self._records(path, relative, type))

    def optional_records(self, relative: str, type: type[T]) -> list[T]:
        """As `records`, of a file that a run need not have."""
        return self.records(relative, type) if self.path(relative) else []

    def _records(self, path: Path, relative: str, type: type[T]) -> Iterator[T]:
        with open(path, "rb") as lines:
            for line in lines:
                try:
                    yield msgspec.convert(replace_lone_surrogates(json.loads(line)), type)
                except ValueError:  # msgspec's errors are ValueErrors
                    self.damaged.append(relative)
                    return

    def _may_read(self, path: Path) -> bool:
        return self._declared is None or path.resolve() in self._declared


def replace_lone_surrogates(value: Any) -> Any:
    """The value with lone surrogates, which JSON admits and UTF-8 does not, replaced by U+FFFD."""
    if isinstance(value, str):
        return LONE_SURROGATES.sub("\ufffd", value)
    if isinstance(value, list):
        return [replace_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {replace_lone_surrogates(key): replace_lone_surrogates(item) for key, item in value.items()}
    return value
