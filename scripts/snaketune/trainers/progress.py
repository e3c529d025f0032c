"""Turns a trainer's events into the logs that every training leaves: metrics.jsonl, timing.jsonl, the status line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from snaketune.contracts.train import TrainingJob
from snaketune.files import read_jsonl
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import EpochSampler
from snaketune.train.checkpoints import EarlyStopping, TrainerState
from snaketune.train.metrics_log import TrainingCallback
from snaketune.train.tracking import Tracker
from snaketune.train.training_logger import PendingStep, TrainingLogger
from snaketune.trainers.process import TrainerEvent


class Progress:
    """The logs of one training by a trainer of the field, in `folder`.

    visits: the rows in the order in which they are seen. A step's target tokens and padding are counted as if the
    trainer kept to that order.
    """

    state: TrainerState
    logger: TrainingLogger

    def __init__(
        self,
        job: TrainingJob,
        folder: Path,
        sampler: EpochSampler,
        visits: np.ndarray,
        *,
        tracker: Tracker,
        callback: TrainingCallback,
    ) -> None:
        self.job, self.folder, self.sampler = job, folder, sampler
        self.tracker, self.callback = tracker, callback
        self.own_losses: dict[int, float] = {}
        self._measure(TokenStore(job.train_tokens), visits)
        self.peak_memory = self.trainable = self.total = 0

    def take(self, event: TrainerEvent) -> None:
        """Log an event."""
        self.peak_memory = max(self.peak_memory, event.memory_bytes)
        if event.event == "begin":
            self._start(event.step)
            self.trainable = event.trainable_parameters or 0
            self.total = event.total_parameters or 0
            self.logger.start()
            self.callback.on_start(self.sampler.num_steps)
        elif event.event == "step":
            self._advance(event)
        elif event.event == "validation" and event.step not in self.own_losses:
            self._validated(event)

    def new_target_tokens(self) -> int:
        """The target tokens of the steps since the start or the last resumption."""
        return int(self._targets[self.logger.resumed_from : self.state.step].sum())

    def _start(self, step: int) -> None:
        """Begin to log after a step that is done already; later lines of metrics.jsonl are cut off."""
        self.state = TrainerState(early_stopping=EarlyStopping(patience=None))
        kept, self.own_losses = 0, {}
        metrics = self.folder / "metrics.jsonl"
        if step and metrics.exists():
            kept = self._keep(metrics, step)
        self.state.metrics_size = kept
        self._count(step)
        self.logger = TrainingLogger(
            self.folder,
            self.state,
            self.sampler,
            tracker=self.tracker,
            callback=self.callback,
            peak_memory=lambda: self.peak_memory,
        )

    def _keep(self, metrics: Path, step: int) -> int:
        """The size of the part of metrics.jsonl up to a step, whose validations are taken as seen."""
        size = 0
        with open(metrics, "rb") as lines:
            for raw, line in zip(lines, read_jsonl(metrics), strict=True):
                if line["step"] > step:
                    break
                size += len(raw)
                if line.get("validation_loss") is not None:
                    self.own_losses[line["step"]] = line["validation_loss"]
                    self.state.early_stopping.update(line["step"], line["validation_loss"])
        return size

    def _advance(self, event: TrainerEvent) -> None:
        before = self.state.step
        self._count(event.step)
        span = slice(before, event.step)
        targets, padded = int(self._targets[span].sum()), int(self._padded[span].sum())
        self.logger.log_step(
            PendingStep(
                step=event.step,
                learning_rate=event.learning_rate or 0.0,
                num_target_tokens=targets,
                padding_ratio=1 - int(self._inputs[span].sum()) / max(1, padded),
                loss=math.nan if event.loss is None else event.loss,
                grad_norm=math.nan if event.grad_norm is None else event.grad_norm,
                is_finite=event.loss is not None,
            )
        )

    def _validated(self, event: TrainerEvent) -> None:
        loss = math.nan if event.loss is None else event.loss
        self.own_losses[event.step] = loss
        self._count(event.step)
        self.logger.log_validation(loss)
        self.state.early_stopping.update(event.step, loss)
        self.logger.show_best()

    def _count(self, step: int) -> None:
        """Set the counters of the state to what is done after a step."""
        self.state.step = step
        self.state.rows_seen = min(step * self.job.config.rows_per_step, self.sampler.num_visits)
        self.state.num_target_tokens = int(self._targets[:step].sum())
        self.state.input_tokens = int(self._inputs[:step].sum())
        self.state.padded_tokens = int(self._padded[:step].sum())

    def _measure(self, store: TokenStore, visits: np.ndarray) -> None:
        """For each step its target tokens, its positions without padding, and all of them."""
        config, per_step = self.job.config, self.job.config.rows_per_step
        lengths = store.lengths[visits] - 1
        targets = lengths if config.train_on_prompts else store.num_target_tokens[visits]
        starts = np.arange(0, len(visits), per_step)
        self._targets, self._inputs = np.add.reduceat(targets, starts), np.add.reduceat(lengths, starts)
        batches = [np.arange(first, len(visits[: first + per_step]), config.batch_size) for first in starts]
        self._padded = np.array([self._padded_size(lengths, batch, config.batch_size) for batch in batches])

    @staticmethod
    def _padded_size(lengths: np.ndarray, firsts: np.ndarray, batch_size: int) -> int:
        parts = [lengths[first : first + batch_size] for first in firsts]
        return sum(len(part) * int(part.max()) for part in parts)
