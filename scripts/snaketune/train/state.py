"""The trainer's state: with weights and optimizer state, all that a checkpoint holds."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from snaketune.contracts.train import TrainingJob, TrainingSummary, VisitCounts
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
    first step, None until it is measured; metrics_size is the length of metrics.jsonl in bytes.
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
        validation_tokens=int(valid.targets.sum()),
        method=job.config.method,
        seed=job.seed,
    )
