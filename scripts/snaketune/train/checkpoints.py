"""Checkpoints that are whole, ours and of this very training, or not used at all.

A training's checkpoints live in a folder named by a fingerprint of everything that the result depends on. Each is a
safetensors file and, written last, a JSON file with its SHA-256 and the state of the loop. Arrays are NumPy's here;
the engine turns them into its own.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from snaketune import files
from snaketune.config.schema import canonical
from snaketune.errors import TrainingError

FINGERPRINT = re.compile("[0-9a-f]{16}")
# settings of a training that change nothing of what is trained
WITHOUT_EFFECT = ("report_to", "notify", "save_total_limit", "memory_limit", "hosts", "worker_timeout")
Writer = Callable[[Path], None]  # writes a safetensors file under the given name


def fingerprint(settings: dict[str, Any], inputs: Iterable[files.StrPath], **more: Any) -> str:
    """A short name for a training: its settings, the content of its input files, and more (its code, versions)."""
    parts = {"settings": settings, "inputs": [files.sha256(path) for path in inputs], **more}
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:16]


class Checkpoints:
    """The checkpoints of one training, in `folder`; the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, update: int, state: dict[str, Any], write: Writer, companion: Path) -> None:
        """Write a checkpoint; killed at any moment, it leaves the ones before it as they were.

        companion: a file in the same folder without which it is worth nothing (the best adapter).
        """
        tensors = self._tensors(update)
        with files.replacing(tensors) as temporary:
            write(temporary)
        whole = {path.name: files.sha256(path) for path in (tensors, companion)}
        files.write_json(self._note(update), {"update": update, "files": whole, "state": state})
        for old in self._updates()[: -self.keep]:
            self._note(old).unlink(missing_ok=True)
        self._remove_unnamed()

    def newest(self) -> tuple[dict[str, Any], Path] | None:
        """State and tensor file of the newest whole checkpoint; a broken one is named on stderr and removed."""
        for update in reversed(self._updates()):
            try:
                note = files.read_json(self._note(update))
                changed = [name for name, known in note["files"].items() if files.sha256(self.folder / name) != known]
                if not changed:
                    return note["state"], self._tensors(update)
                problem = f"{changed[0]} is not what was written"
            except (OSError, ValueError, KeyError, TypeError) as error:
                problem = str(error)
            print(
                f"snaketune: checkpoint of update {update} is broken ({problem}); an older one is used", file=sys.stderr
            )
            self._note(update).unlink(missing_ok=True)
        return None

    def remove_others(self) -> None:
        """Remove the checkpoints of other trainings in the same place: their results have been replaced."""
        for other in self.folder.parent.iterdir():
            if FINGERPRINT.fullmatch(other.name) and other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def _remove_unnamed(self) -> None:
        """Remove the tensor files that no checkpoint names."""
        named = {name for update in self._updates() for name in self._files(update)}
        for file in self.folder.glob("*.safetensors"):
            if file.name not in named:
                file.unlink()

    def _files(self, update: int) -> dict[str, str]:
        """The files of a checkpoint and their SHA-256; none where its note is broken."""
        try:
            return dict(files.read_json(self._note(update))["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _updates(self) -> list[int]:
        return sorted(int(note.stem.removeprefix("checkpoint-")) for note in self.folder.glob("checkpoint-*.json"))

    def _note(self, update: int) -> Path:
        return self.folder / f"checkpoint-{update:08d}.json"

    def _tensors(self, update: int) -> Path:
        return self.folder / f"checkpoint-{update:08d}.safetensors"


def checked(path: Path) -> Path:
    """The path of a safetensors file, once its header and size agree; raises TrainingError for a truncated one."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as content:
            length = int.from_bytes(content.read(8), "little")
            header = json.loads(content.read(length) if length < size else b"")
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if 8 + length + max(ends, default=0) == size:
            return path
        problem = f"{size} bytes instead of {8 + length + max(ends, default=0)}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = str(error)
    raise TrainingError(
        f"this safetensors file is broken ({problem})",
        where=str(path),
        why="Half an adapter would load without a word and answer nonsense",
        fix="Delete the file and run snakemake again",
    )
