"""Trains an adapter with PyTorch: the part `engines.interface.Trainer`."""

from __future__ import annotations

from importlib.metadata import version

from snaketune.contracts.train import TrainingJob, TrainingSummary
from snaketune.engines.torch import launcher
from snaketune.engines.torch.device import best_device, peak_memory
from snaketune.engines.torch.trainable_model import TorchTrainableModel
from snaketune.runtime.code_digest import code_digest
from snaketune.train import training
from snaketune.train.metrics_log import TrainingCallback


def train(job: TrainingJob, callback: TrainingCallback | None = None) -> TrainingSummary:
    """Run a training; see `engines.interface.Trainer`."""
    return training.train(job, training_engine(), callback)


def training_engine() -> training.TrainingEngine:
    """What PyTorch adds to a training."""
    return training.TrainingEngine(
        load_model=TorchTrainableModel,
        launch=launcher.train,
        code=code_digest(__file__),
        versions=[version("torch"), version("transformers")],
        peak_memory=lambda: peak_memory(best_device()),
    )
