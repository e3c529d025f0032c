"""What an unfinished evaluation has done so far, kept line by line so that a killed one continues where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from snaketune.files import StrPath, dumps


class Journal:
    """Facts by name, appended to a file as they are found.

    The first line is the fingerprint of everything that the facts depend on; under another one they are forgotten.
    A line cut off by a kill is dropped.
    """

    def __init__(self, path: StrPath, fingerprint: str) -> None:
        self.path = Path(path)
        self.fingerprint = fingerprint
        self.known: dict[str, Any] = {}
        self._out: IO[bytes] | None = None

    def __enter__(self) -> Journal:
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

    def add(self, name: str, fact: Any) -> None:
        """Remember a fact; it outlives this process once this returns."""
        self.known[name] = fact
        self._write({"name": name, "fact": fact})

    def finish(self) -> None:
        """The evaluation is complete; what it has done is no longer needed."""
        self.path.unlink(missing_ok=True)

    def _write(self, line: dict[str, Any]) -> None:
        assert self._out is not None
        self._out.write(dumps(line).encode() + b"\n")
        self._out.flush()

    def _read(self) -> int:
        """Take in the facts of an earlier process; returns how many bytes of its file hold good."""
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
                    self.known[found["name"]] = found["fact"]
                kept += len(line)
        return kept
