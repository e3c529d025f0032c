"""Trains an adapter with MLX: the part `engines.interface.Trainer`."""

from __future__ import annotations

from importlib.metadata import version

import mlx.core as mx

from snaketune.contracts.train import TrainingJob, TrainingSummary
from snaketune.engines.mlx import launcher
from snaketune.engines.mlx.trainable_model import MLXTrainableModel
from snaketune.runtime.code_digest import code_digest
from snaketune.train import training
from snaketune.train.metrics_log import TrainingCallback
from snaketune.train.process_group import ProcessGroup


def train(job: TrainingJob, callback: TrainingCallback | None = None) -> TrainingSummary:
    """Run a training; see `engines.interface.Trainer`."""
    return training.train(
        job,
        callback,
        in_this_process=lambda job, callback: train_worker(job, ProcessGroup(), callback),
        on_workers=launcher.train,
    )


def train_worker(job: TrainingJob, group: ProcessGroup, callback: TrainingCallback | None = None) -> None:
    """Run one process's part of a training; the main process writes the files."""
    training.train_worker(job, group, engine(), callback)


def engine() -> training.TrainingEngine:
    """What MLX adds to a training."""
    return training.TrainingEngine(
        load_model=MLXTrainableModel,
        code=code_digest(__file__),
        versions=[version("mlx"), version("mlx-lm")],
        peak_memory=mx.get_peak_memory,
    )
