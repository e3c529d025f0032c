"""Runs one process of a training on several: `python -m snaketune.engines.mlx.worker JOB`, started by the launcher."""

from __future__ import annotations

import os

from snaketune.runtime.step import block_torch

block_torch()  # before mlx-lm imports transformers

import mlx.core as mx  # noqa: E402

from snaketune.engines.mlx import train  # noqa: E402
from snaketune.engines.mlx.process_group import MLXProcessGroup  # noqa: E402
from snaketune.train import worker  # noqa: E402

RANK_VARIABLES = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")  # known before the other processes are found


def main() -> None:
    rank = next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)
    worker.run(
        rank, lambda _: MLXProcessGroup(mx.distributed.init(strict=True, backend="any")), train.training_engine()
    )


if __name__ == "__main__":
    main()
