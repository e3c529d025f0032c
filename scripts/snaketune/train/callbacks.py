"""Hooks into a running training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snaketune.contracts.train import StepMetrics, ValidationMetrics


@dataclass(frozen=True)
class WorkerProgress:
    """A worker process as its launcher sees it: its rank, its host, and how many collective operations it has begun."""

    rank: int
    host: str
    num_collectives: int


class TrainingCallback:
    """Hooks into a training; each does nothing until a subclass overrides it.

    An exception that a hook raises ends the training as a kill would: what is saved is the last checkpoint. With
    several worker processes only `on_workers` is called, in the process that started them.
    """

    def on_start(self, num_steps: int) -> None:
        """Called once the model is loaded, before anything is computed."""

    def on_step_begin(self, step: int) -> None:
        """Called before a step is dispatched."""

    def on_step_end(self, metrics: StepMetrics) -> None:
        """Called once a step is computed and logged, which is while the next one runs."""

    def on_validation(self, metrics: ValidationMetrics) -> None:
        """Called after a validation."""

    def on_checkpoint(self, step: int) -> None:
        """Called once a checkpoint is on disk."""

    def on_workers(self, workers: Sequence[WorkerProgress]) -> None:
        """Called several times a second while worker processes train."""
