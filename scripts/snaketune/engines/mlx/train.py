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


def train(job: TrainingJob, callback: TrainingCallback | None = None) -> TrainingSummary:
    """Run a training; see `engines.interface.Trainer`."""
    return training.train(job, training_engine(), callback)


def training_engine() -> training.TrainingEngine:
    """What MLX adds to a training."""
    return training.TrainingEngine(
        load_model=MLXTrainableModel,
        launch=launcher.train,
        code=code_digest(__file__),
        versions=[version("mlx"), version("mlx-lm")],
        peak_memory=mx.get_peak_memory,
    )
