"""Sends the numbers of metrics.jsonl elsewhere as well: a small interface, with TensorBoard and W&B behind it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

import msgspec

from snaketune.contracts.train import TrainingJob
from snaketune.errors import ConfigError


class Tracker(Protocol):
    """Takes the numbers of each step. A resumed run sends some of them a second time."""

    def log(self, step: int, numbers: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class NullTracker:
    """Tracking switched off."""

    def log(self, step: int, numbers: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._writer = _import("tensorboardX").SummaryWriter(str(folder))

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A W&B run that goes on when the training does; account and project come from W&B's own environment variables."""

    def __init__(self, folder: Path, training_id: str, job: TrainingJob) -> None:
        self._run = _import("wandb").init(
            project="snaketune",
            dir=str(folder),
            id=training_id,
            resume="allow",
            config={**msgspec.to_builtins(job.config), "dtype": job.dtype, "seed": job.seed},
        )

    def log(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()


def open_tracker(folder: Path, training_id: str, job: TrainingJob) -> Tracker:
    """The tracker that `train.report_to` names, writing below `folder`; training_id names the training."""
    if job.config.report_to == "tensorboard":
        return TensorBoard(folder / "tensorboard")
    if job.config.report_to == "wandb":
        return WeightsAndBiases(folder, training_id, job)
    return NullTracker()


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"{module} is not installed",
            where="train.report_to",
            fix=f"Run `pip install {module}`, or set it to null",
        ) from None
