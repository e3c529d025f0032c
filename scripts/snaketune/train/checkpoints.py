"""Checkpoints that are complete and of this very training, or not used at all.

The checkpoints of a training live in a folder named by a fingerprint of everything that its result depends on. Each is
a safetensors file and, written last, a JSON file with the SHA-256 of its files and the trainer's state. The engine
writes and reads the tensors.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from snaketune import files
from snaketune.config.schema import canonical
from snaketune.errors import TrainingError, UserError
from snaketune.files import Record
from snaketune.train.state import TrainerState

FINGERPRINT = re.compile("[0-9a-f]{16}")
TensorWriter = Callable[[Path], None]  # writes a safetensors file under the given name


def fingerprint(settings: dict[str, Any], inputs: Iterable[files.StrPath], **more: Any) -> str:
    """A short name for a training: its settings, the content of its input files, and more (its code, versions)."""
    parts = {"settings": settings, "inputs": [files.sha256(path) for path in inputs], **more}
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:16]


class CheckpointMetadata(Record, frozen=True, kw_only=True):
    """checkpoint-<step>.json: the SHA-256 of the checkpoint's files by name, and the trainer's state."""

    step: int
    files: dict[str, str]
    state: TrainerState


class Checkpoint(NamedTuple):
    """A complete checkpoint: the trainer's state, and the safetensors file of weights and optimizer state."""

    state: TrainerState
    tensors: Path


class Checkpoints:
    """The checkpoints of one training, in `folder`; the newest `limit` stay."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: TrainerState, write: TensorWriter, best_adapter: Path) -> None:
        """Write a checkpoint; killed at any moment, it leaves the ones before it as they were.

        best_adapter: a file in the same folder without which the checkpoint is worth nothing.
        """
        tensors = self._tensors(state.step)
        with files.replacing(tensors) as temporary:
            write(temporary)
        digests = {path.name: files.sha256(path) for path in (tensors, best_adapter)}
        metadata = CheckpointMetadata(step=state.step, files=digests, state=state)
        files.write_json(self._metadata_path(state.step), metadata)
        for old in self._steps()[: -self.limit]:
            self._metadata_path(old).unlink(missing_ok=True)
        self._remove_unnamed()

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint; a broken one is named on stderr and removed."""
        for step in reversed(self._steps()):
            try:
                metadata = files.read_json(self._metadata_path(step), CheckpointMetadata)
                changed = [
                    name for name, digest in metadata.files.items() if files.sha256(self.folder / name) != digest
                ]
                if not changed:
                    return Checkpoint(metadata.state, self._tensors(step))
                problem = f"{changed[0]} is not what was written"
            except (OSError, ValueError, UserError) as error:
                problem = str(error)
            print(f"snaketune: checkpoint of step {step} is broken ({problem}); an older one is used", file=sys.stderr)
            self._metadata_path(step).unlink(missing_ok=True)
        return None

    def prune_other_trainings(self) -> None:
        """Remove the checkpoints of other trainings in the same place: their results have been replaced."""
        for other in self.folder.parent.iterdir():
            if FINGERPRINT.fullmatch(other.name) and other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def _remove_unnamed(self) -> None:
        """Remove the tensor files that no checkpoint names."""
        named = {name for step in self._steps() for name in self._files(step)}
        for file in self.folder.glob("*.safetensors"):
            if file.name not in named:
                file.unlink()

    def _files(self, step: int) -> list[str]:
        """The names of a checkpoint's files; none where its metadata is broken."""
        try:
            return list(files.read_json(self._metadata_path(step), CheckpointMetadata).files)
        except (OSError, ValueError, UserError):
            return []

    def _steps(self) -> list[int]:
        return sorted(int(path.stem.removeprefix("checkpoint-")) for path in self.folder.glob("checkpoint-*.json"))

    def _metadata_path(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step:08d}.json"

    def _tensors(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step:08d}.safetensors"


def validate_safetensors(path: Path) -> Path:
    """Return the path of a safetensors file whose header and size agree; raises TrainingError for a truncated one."""
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
        why="Half an adapter would load without an error and give wrong answers",
        fix="Delete the file and run snakemake again",
    )
