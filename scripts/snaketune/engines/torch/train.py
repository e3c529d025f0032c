"""Trains an adapter with PyTorch: the part `engines.interface.Trainer`."""

from __future__ import annotations

from importlib.metadata import version

from snaketune.contracts.train import TrainingJob, TrainingSummary
from snaketune.engines.torch import launch
from snaketune.engines.torch.device import best_device, peak_memory
from snaketune.engines.torch.trainable_model import TorchTrainableModel
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
        on_workers=launch.train,
    )


def train_worker(job: TrainingJob, group: ProcessGroup, callback: TrainingCallback | None = None) -> None:
    """Run one process's part of a training; the main process writes the files."""
    training.train_worker(job, group, _engine(), callback)


def _engine() -> training.TrainingEngine:
    return training.TrainingEngine(
        load_model=TorchTrainableModel,
        code=code_digest(__file__),
        versions=[version("torch"), version("transformers")],
        peak_memory=lambda: peak_memory(best_device()),
    )
