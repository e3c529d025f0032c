"""The resume log of an unfinished evaluation: results are appended as they come, so that a killed step continues."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from snaketune.files import StrPath, dumps


class ResumeLog:
    """Entries by name, appended to a file as they are made.

    The first line is the fingerprint of everything that the entries depend on; with another one they are discarded. A
    line that a kill cut off is dropped.
    """

    def __init__(self, path: StrPath, fingerprint: str) -> None:
        self.path = Path(path)
        self.fingerprint = fingerprint
        self.entries: dict[str, Any] = {}
        self._out: IO[bytes] | None = None

    def __enter__(self) -> ResumeLog:
        kept = self._read()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._out = open(self.path, "r+b" if kept else "wb")
        self._out.truncate(kept)
        self._out.seek(kept)
        if not kept:
            self._write({"fingerprint": self.fingerprint})
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._out is not None:
            self._out.close()

    def add(self, name: str, entry: Any) -> None:
        """Record an entry; once this returns, it survives a kill of the process."""
        self.entries[name] = entry
        self._write({"name": name, "entry": entry})

    def finish(self) -> None:
        """Delete the file: the evaluation is complete."""
        self.path.unlink(missing_ok=True)

    def _write(self, line: dict[str, Any]) -> None:
        assert self._out is not None
        self._out.write(dumps(line).encode() + b"\n")
        self._out.flush()

    def _read(self) -> int:
        """Load the entries of an earlier process; returns how many bytes of its file are valid."""
        if not self.path.is_file():
            return 0
        kept = 0
        with open(self.path, "rb") as lines:
            for number, line in enumerate(lines):
                try:
                    found = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                if number == 0:
                    if found.get("fingerprint") != self.fingerprint:
                        return 0
                else:
                    self.entries[found["name"]] = found["entry"]
                kept += len(line)
        return kept
