"""Runs one process of a training on several: `python -m snaketune.engines.torch.worker JOB`, started by torchrun."""

from __future__ import annotations

import os

import torch

from snaketune.contracts.train import TrainingJob
from snaketune.engines.torch import train
from snaketune.engines.torch.device import best_device
from snaketune.engines.torch.process_group import TorchProcessGroup, check_workers
from snaketune.train import worker

BACKEND_PATIENCE = 60.0
"""Seconds that the backend waits longer than the launcher does, whose message names the worker that is late."""


def main() -> None:
    """torchrun hands its standard input to all its workers alike, so only the main one listens to it."""
    rank = int(os.environ["RANK"])
    worker.run(rank, join, train.training_engine(), listens=rank == 0)


def join(job: TrainingJob) -> TorchProcessGroup:
    """Meet the other processes; of a machine's cards each takes that of its local rank."""
    check_workers(int(os.environ["LOCAL_WORLD_SIZE"]))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return TorchProcessGroup(best_device(), job.config.worker_timeout + BACKEND_PATIENCE)


if __name__ == "__main__":
    main()
