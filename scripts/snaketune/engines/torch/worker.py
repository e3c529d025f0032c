"""Runs one process of a training on several: `python -m snaketune.engines.torch.worker JOB`, started by torchrun."""

from __future__ import annotations

import os

import torch

from snaketune.engines.torch import train
from snaketune.engines.torch.device import best_device
from snaketune.engines.torch.process_group import TorchProcessGroup
from snaketune.train import worker


def main() -> None:
    """torchrun hands its standard input to all its workers alike, so only the main one listens to it."""
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    worker.run(rank, lambda: TorchProcessGroup(best_device()), train.training_engine(), listens=rank == 0)


if __name__ == "__main__":
    main()
