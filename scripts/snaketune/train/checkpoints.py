"""Checkpoints that are complete and of this very training, or not used at all; and signals that wait for one.

The checkpoints of a training live in a folder named by a fingerprint of everything that its result depends on. Each is
a safetensors file and, written last, a JSON file with the SHA-256 of its files and the trainer's state, which with
weights and optimizer state is all that a checkpoint holds. The engine writes and reads the tensors. SIGINT and SIGTERM
are deferred until the training loop can save a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from snaketune import files
from snaketune.config.schema import canonical
from snaketune.contracts.train import TrainingJob, TrainingSummary, VisitCounts
from snaketune.errors import StoppedError, TrainingError, UserError
from snaketune.files import Record
from snaketune.runtime.events import report_warning
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import EpochSampler
from snaketune.train.metrics_log import round_significant


class EarlyStopping(msgspec.Struct, kw_only=True):
    """Tracks the best validation loss (nats per target token) and stops after `patience` evaluations without a gain.

    An evaluation gains if its loss falls by more than `min_delta` below that of the last one that gained
    (`best_counted_loss`); `num_bad_evals` counts those in a row that did not. patience None never stops.
    """

    patience: int | None
    min_delta: float = 0.0
    best_loss: float = math.inf
    best_step: int = 0
    num_bad_evals: int = 0
    best_counted_loss: float = math.inf

    def update(self, step: int, loss: float) -> bool:
        """Count an evaluation; returns whether it is the best so far. The base model's, at step 0, is never bad."""
        if loss < self.best_counted_loss - self.min_delta:
            self.best_counted_loss, self.num_bad_evals = loss, 0
        elif step:
            self.num_bad_evals += 1
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, step
            return True
        return False

    @property
    def should_stop(self) -> bool:
        return self.patience is not None and self.num_bad_evals >= self.patience


class TrainerState(msgspec.Struct, kw_only=True):
    """Counts since the first step of a training, over all its resumptions.

    input_tokens are positions without padding, padded_tokens all positions; base_loss is the validation loss before the
    first step, None until it is measured; metrics_size is the length of metrics.jsonl in bytes; validated_step is that
    of the last validation.
    """

    early_stopping: EarlyStopping
    step: int = 0
    rows_seen: int = 0
    num_target_tokens: int = 0
    input_tokens: int = 0
    padded_tokens: int = 0
    skipped_steps: int = 0
    consecutive_nonfinite: int = 0
    base_loss: float | None = None
    metrics_size: int = 0
    validated_step: int = 0


class ParameterCounts(NamedTuple):
    """Numbers of parameters: those that are trained, and all."""

    trainable: int
    total: int


def summarize(
    state: TrainerState,
    job: TrainingJob,
    sampler: EpochSampler,
    valid: TokenStore,
    parameters: ParameterCounts,
    stop_reason: str,
) -> TrainingSummary:
    """The summary of a training that has ended; nothing in it depends on the clock or on interruptions."""
    visits = sampler.visit_counts(state.step)
    return TrainingSummary(
        steps=state.step,
        planned_steps=sampler.num_steps,
        epochs=round_significant(sampler.epoch(state.step)),
        rows=len(visits),
        rows_seen=state.rows_seen,
        times_each_row_was_seen=VisitCounts(
            least=int(visits.min()), most=int(visits.max()), mean=round_significant(float(visits.mean()))
        ),
        num_target_tokens=state.num_target_tokens,
        positions_per_token=round_significant(state.padded_tokens / max(1, state.input_tokens), 5),
        base_validation_loss=round_significant(state.base_loss if state.base_loss is not None else math.nan),
        best_validation_loss=round_significant(state.early_stopping.best_loss),
        best_step=state.early_stopping.best_step,
        skipped_steps=state.skipped_steps,
        stop_reason=stop_reason,
        trainable_parameters=parameters.trainable,
        total_parameters=parameters.total,
        validation_rows=len(valid),
        validation_tokens=int(valid.num_target_tokens.sum()),
        method=job.config.method,
        seed=job.seed,
    )


CHECKPOINT_SAVED = "a checkpoint is saved"  # in the message of a training that ended in order and can be resumed


class DeferredSignals:
    """While entered, a first signal is only recorded (`received`, 0 for none); a second SIGINT interrupts at once.

    A second SIGTERM does not: one that is sent to a whole process group arrives from Snakemake as well.
    """

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> DeferredSignals:
        self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: object) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number


def interruption_error(step: int) -> StoppedError:
    """What to raise after a signal, once the checkpoint of `step` is written."""
    if not step:
        return StoppedError("the training was stopped before the first step")
    return StoppedError(f"the training was stopped after step {step}; {CHECKPOINT_SAVED}")


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
            report_warning(f"checkpoint of step {step} is broken ({problem}); an older one is used")
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
