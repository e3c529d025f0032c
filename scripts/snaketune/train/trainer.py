"""The training loop, from top to bottom, the same for every engine.

Everything in it is a function of the job, the rows and the step: which rows a step has, how they are split, its
learning rate, its dropout. So a checkpoint is weights, optimizer state and a few counters, and a run that was killed
and started again ends in the same bytes as one that was not.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snaketune.contracts.train import TrainingJob, TrainingSummary
from snaketune.errors import TrainingError
from snaketune.runtime import stopping
from snaketune.runtime.events import report_warning
from snaketune.tokens.token_store import BaseRows, TokenStore
from snaketune.train.batches import Batch, EpochSampler, collate, micro_batching_from, nested_subset, schedule_from
from snaketune.train.checkpoints import (
    Checkpoints,
    DeferredSignals,
    EarlyStopping,
    TrainerState,
    interruption_error,
    summarize,
)
from snaketune.train.engine import TrainableModel
from snaketune.train.metrics_log import TrainingCallback
from snaketune.train.process_group import ProcessGroup
from snaketune.train.tracking import Tracker
from snaketune.train.training_logger import PendingStep, TrainingLogger

MIN_CHECKPOINT_INTERVAL, MAX_CHECKPOINT_INTERVAL = 10.0, 600.0  # seconds that a run which is stopped may lose
CHECKPOINT_SHARE = 50  # a checkpoint is due after so many times the seconds that writing the last one took
SHARE_BEFORE_VALIDATION = 20  # the same before a validation, which a stop may cut off in the middle of a batch
VALIDATION_WINDOW = 64  # validation rows, sorted by length, that are split into micro-batches together


class Sizes(NamedTuple):
    """What a step trained on, over all processes."""

    num_target_tokens: int
    input_tokens: int
    padded_tokens: int


class Trainer:
    """One training by one process of `group`: the constructor makes it ready, `train` runs it.

    checkpoint_dir: of this very training, see `Checkpoints`. load_model: makes the engine's part; it is called once the
    rows are known to be good, with the longest row's length.
    """

    def __init__(
        self,
        job: TrainingJob,
        checkpoint_dir: Path,
        group: ProcessGroup,
        *,
        load_model: Callable[[int], TrainableModel],
        tracker: Tracker,
        callback: TrainingCallback,
    ) -> None:
        self.job, self.config, self.group, self.callback = job, job.config, group, callback
        self.train_rows, self.valid_rows = TokenStore(job.train_tokens), TokenStore(job.valid_tokens)
        self._check_rows()
        self._setup_sampling()
        self.model = load_model(self.max_row_length)
        self.batching = micro_batching_from(self.config, on_cpu=self.model.on_cpu)
        self.checkpoints = Checkpoints(checkpoint_dir, self.config.save_total_limit)
        self.signals = DeferredSignals()
        self._resume()
        self.logger = TrainingLogger(
            checkpoint_dir if group.is_main else None,
            self.state,
            self.sampler,
            tracker=tracker,
            callback=callback,
            peak_memory=self.model.peak_memory,
        )

    def train(self) -> TrainingSummary:
        """Train until all steps are done, or early stopping ends it."""
        self.last_save_time, self.save_seconds = time.monotonic(), 0.0
        self.logger.start()
        self.callback.on_start(self.sampler.num_steps)
        self._probe_fast_paths()
        with self.signals as signals:
            if self.state.base_loss is None or self.is_validation_missing():
                self.evaluate()
                self.save_checkpoint()
            pending: PendingStep | None = None
            while not self.is_last_step() and not self.early_stopping.should_stop:
                previous, pending = pending, self.train_step(self.state.step + 1)
                if previous:
                    self.log_step(previous)  # while the step after it is being computed
                stop_requested, checkpoint_due = self.group.all_reduce_max(
                    signals.received or self.group.stop_signal, int(self.checkpoint_due())
                )
                if self.should_evaluate() or stop_requested or checkpoint_due:
                    self.log_step(pending)
                    pending = None
                    if self.should_evaluate():
                        if checkpoint_due or self._is_worth_saving():
                            self.save_checkpoint()  # a validation that is stopped starts over from here
                        self.evaluate()
                    self.save_checkpoint()
                if stop_requested and not self.is_last_step():
                    raise interruption_error(self.state.step)
        self.logger.close()
        return self.summary()

    def train_step(self, step: int) -> PendingStep:
        """Dispatch one step on the rows that the sampler gives it."""
        self.callback.on_step_begin(step)
        rows = self.row_indices[self.sampler.rows(step)]
        batches = self._micro_batches(rows)
        sizes = self._total_sizes(batches)
        learning_rate = self.schedule(step)
        result = self.model.train_step(step, batches, sizes.num_target_tokens, learning_rate)
        self.state.step = step
        self.state.rows_seen += len(rows)
        self.state.num_target_tokens += sizes.num_target_tokens
        self.state.input_tokens += sizes.input_tokens
        self.state.padded_tokens += sizes.padded_tokens
        padding_ratio = 1 - sizes.input_tokens / sizes.padded_tokens
        return PendingStep(step, learning_rate, sizes.num_target_tokens, padding_ratio, *result)

    def log_step(self, pending: PendingStep) -> None:
        """Wait for a step, count it if it was skipped, and log it."""
        state, step = self.state, pending.step
        if pending.is_finite:
            state.consecutive_nonfinite = 0
        else:
            state.skipped_steps += 1
            state.consecutive_nonfinite += 1
            report_warning(f"step {step} is skipped: loss or gradient are not finite")
            if state.consecutive_nonfinite >= self.config.max_nonfinite_steps:
                raise divergence_error(step, state.consecutive_nonfinite)
        self.logger.log_step(pending)

    def evaluate(self) -> None:
        """Measure the mean loss per target token over all validation rows; keep the weights if it is the lowest."""
        self.model.synchronize()
        loss = self._validation_loss(self.valid_rows)
        if self.state.base_loss is None:
            # a soft prompt is something from the start: the base is the model that reads none
            base_loss = self._validation_loss(BaseRows(self.valid_rows)) if self.valid_rows.virtual_ids else loss
            if not math.isfinite(base_loss):
                raise base_loss_error(self.job.dtype)
            self.state.base_loss = base_loss
        self.logger.log_validation(loss)
        self.state.validated_step = self.state.step
        if self.early_stopping.update(self.state.step, loss) and self.group.is_main:
            self.model.save_adapter(self.best_adapter_path())
        self.logger.show_best()

    def _validation_loss(self, store: TokenStore) -> float:
        """The mean loss per target token over all rows of a store."""
        total, num_target_tokens = self.model.validation_losses(self._validation_batches(store))
        return self.group.broadcast_object(total / num_target_tokens, float)

    def _stop_between_batches(self) -> None:
        """End a validation for a signal; it starts over from a checkpoint. Several processes finish it together."""
        if not self.signals.received or self.group.world_size > 1:
            return
        if self.state.base_loss is not None:
            self.save_checkpoint()
        raise interruption_error(self.state.step)

    def save_checkpoint(self) -> None:
        """Write weights, optimizer state and counters; the main process alone does it."""
        self.last_save_time = time.monotonic()
        if not self.group.is_main:
            return
        with stopping.finishing():
            self._write_checkpoint()
        self.save_seconds = time.monotonic() - self.last_save_time
        stopping.keep(f"the checkpoint of step {self.state.step} is kept")
        self.callback.on_checkpoint(self.state.step)

    def _write_checkpoint(self) -> None:
        self.state.metrics_size = self.logger.metrics.size()
        self.checkpoints.save(self.state, self.model.save_state, self.best_adapter_path())

    def summary(self) -> TrainingSummary:
        """What summary.json holds."""
        stop_reason = "all steps done"
        if not self.is_last_step():
            stop_reason = f"{self.early_stopping.patience} validations in a row without a gain"
        return summarize(self.state, self.job, self.sampler, self.valid_rows, self.model.parameter_counts, stop_reason)

    def is_last_step(self) -> bool:
        return self.state.step == self.sampler.num_steps

    def should_evaluate(self) -> bool:
        return self.state.step % self.config.eval_interval(self.sampler.num_steps) == 0 or self.is_last_step()

    def is_validation_missing(self) -> bool:
        """Whether the run was stopped between a step and the validation that follows it."""
        return self.should_evaluate() and self.state.validated_step < self.state.step

    def checkpoint_due(self) -> bool:
        due = min(max(CHECKPOINT_SHARE * self.save_seconds, MIN_CHECKPOINT_INTERVAL), MAX_CHECKPOINT_INTERVAL)
        return time.monotonic() - self.last_save_time > due

    def _is_worth_saving(self) -> bool:
        """Whether more would be lost by a stop in a validation than a checkpoint before it costs."""
        return time.monotonic() - self.last_save_time > SHARE_BEFORE_VALIDATION * self.save_seconds

    def best_adapter_path(self) -> Path:
        return self.checkpoints.folder / f"best-{self.early_stopping.best_step:08d}.safetensors"

    @property
    def early_stopping(self) -> EarlyStopping:
        return self.state.early_stopping

    def _check_rows(self) -> None:
        if len(self.valid_rows) == 0:
            raise TrainingError(
                "there is no row to validate on",
                where="data.split.valid",
                why="The best adapter is the one with the lowest validation loss",
                fix="Raise data.split.valid or add rows",
            )
        for store in (self.train_rows, self.valid_rows):
            without_targets = np.flatnonzero(store.num_target_tokens == 0)
            if len(without_targets):
                raise TrainingError(
                    f"row {without_targets[0] + 1} of {len(store)} has no token with loss",
                    where=str(store.path),
                    why="Nothing can be learned from it",
                    fix="Leave rows without a response out of the data",
                )

    def _setup_sampling(self) -> None:
        """Which rows each step has, and each step's learning rate."""
        config, store = self.config, self.train_rows
        num_rows = len(store) if self.job.num_rows is None else self.job.num_rows
        self.row_indices = nested_subset(store, num_rows, self.job.seed)
        self.sampler = EpochSampler(
            store.lengths[self.row_indices],
            store.weights[self.row_indices],
            rows_per_step=config.batch_size * config.gradient_accumulation_steps,
            seed=self.job.seed,
            epochs=config.epochs,
            max_steps=config.max_steps,
        )
        self.max_row_length = int(max(store.lengths.max(), self.valid_rows.lengths.max()))
        self.schedule = schedule_from(config, self.sampler.num_steps)

    def _resume(self) -> None:
        """Continue from the newest complete checkpoint, or start."""
        config = self.config
        self.state = TrainerState(
            early_stopping=EarlyStopping(
                patience=config.early_stopping_patience, min_delta=config.early_stopping_min_delta
            )
        )
        checkpoint = self.checkpoints.newest() if self.group.is_main else None
        self.model.load_state(checkpoint.tensors if checkpoint else None)
        state = self.group.broadcast_object(checkpoint.state if checkpoint else None, TrainerState | None)
        if state:
            self.state = state
            report_warning(f"resuming from step {state.step} of {self.sampler.num_steps}")

    def _probe_fast_paths(self) -> None:
        """Let the model see the first step's rows, and whether they can be packed."""
        unpacked = dataclasses.replace(self.batching, packed=False)
        self.model.probe(collate(self.train_rows, self.row_indices[:1], unpacked))
        if self.batching.packed:
            first_rows = self.row_indices[self.sampler.rows(1)]
            rows = max(self.batching.split(first_rows, self.train_rows.lengths), key=len)
            if len(rows) == 1:  # a later step may have shorter ones, which pack
                rows = self.row_indices[np.argsort(self.train_rows.lengths[self.row_indices], kind="stable")[:2]]
            singly = [collate(self.train_rows, rows[n : n + 1], unpacked) for n in range(len(rows))]
            if not self.model.supports_packing(collate(self.train_rows, rows, self.batching), singly):
                self.batching = unpacked

    def _micro_batches(self, rows: np.ndarray) -> list[Batch]:
        """This process's part of a step's rows."""
        parts = self.batching.split(self.group.shard(rows), self.train_rows.lengths)
        on_prompts = self.config.train_on_prompts
        return [collate(self.train_rows, part, self.batching, train_on_prompts=on_prompts) for part in parts]

    def _total_sizes(self, batches: list[Batch]) -> Sizes:
        return Sizes(
            *self.group.all_reduce_counts(
                sum(len(batch.labels) for batch in batches),
                sum(batch.num_tokens for batch in batches),
                sum(batch.num_positions for batch in batches),
            )
        )

    def _validation_batches(self, store: TokenStore) -> Iterator[Batch]:
        """This process's part of the validation rows, sorted by length."""
        lengths, unpacked = store.lengths, dataclasses.replace(self.batching, packed=False)
        order = np.argsort(lengths, kind="stable")
        done = 0
        for start in range(0, len(order), VALIDATION_WINDOW):
            window = order[start : start + VALIDATION_WINDOW]
            for part in self.group.shard(unpacked.split(window, lengths)):
                self._stop_between_batches()
                self.logger.report_validation(done, len(order))
                yield collate(store, part, unpacked)
                done += len(part)
            done = start + len(window)


def divergence_error(step: int, times: int) -> TrainingError:
    """What to raise after so many steps in a row that were not finite."""
    return TrainingError(
        f"loss or gradient were not finite {times} times in a row, up to step {step}",
        where="train.learning_rate",
        why="Nothing can be learned from that; the last good checkpoint is kept",
        fix="Lower train.learning_rate (to a third of it, at first), set train.max_grad_norm to 0.5, and use "
        "model.dtype bfloat16 or float32 rather than float16",
    )


def base_loss_error(dtype: str) -> TrainingError:
    """What to raise where the base model cannot be measured before the first step."""
    return TrainingError(
        "the base model's validation loss is not finite",
        where="model.dtype",
        why="No step could be told to be better than it",
        fix=f"Use model.dtype bfloat16 or float32 (it is {dtype} now), or check the base model's weights",
    )
