"""Trains an adapter with MLX: the part `engines.interface.Trainer`; several processes are started by `mlx.launch`."""

from __future__ import annotations

import re
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import msgspec

from snaketune.config import experiments
from snaketune.contracts.train import TrainingJob, TrainingSummary
from snaketune.engines.mlx.trainable_model import MLXTrainableModel
from snaketune.runtime.code_digest import code_digest
from snaketune.train import launcher, training
from snaketune.train.metrics_log import TrainingCallback

EXITED = re.compile(r"Node with rank (\d+) (?:was killed|exited with code (-?\d+))")


def train(job: TrainingJob, callback: TrainingCallback | None = None) -> TrainingSummary:
    """Run a training; see `engines.interface.Trainer`."""
    return training.train(job, training_engine(), callback)


def training_engine() -> training.TrainingEngine:
    """What MLX adds to a training."""
    return training.TrainingEngine(
        load_model=MLXTrainableModel,
        launch=launch,
        code=code_digest(__file__),
        versions=[version("mlx"), version("mlx-lm")],
        peak_memory=mx.get_peak_memory,
    )


def launch(job: TrainingJob, callback: TrainingCallback) -> None:
    """Run a training on several processes; see `train.launcher`."""
    launcher.train(job, callback, launch_command(job), find_exit)


def launch_command(job: TrainingJob) -> list[str]:
    """The command line of mlx.launch."""
    port = str(launcher.free_ports(job.config.workers))
    scripts = Path(__file__).resolve().parents[3]
    return [
        str(Path(sys.executable).with_name("mlx.launch")),
        *experiments.launch_arguments(job.config.workers, job.config.hosts),
        *("--starting-port", port, "--nccl-port", port),
        *("--env", f"PYTHONPATH={scripts}"),
        "--",
        *(sys.executable, "-m", "snaketune.engines.mlx.worker", msgspec.json.encode(job).decode()),
    ]


def find_exit(line: str) -> tuple[int, int] | None:
    """(rank, exit code) of a worker that mlx.launch says has ended."""
    exited = EXITED.search(line)
    return (int(exited[1]), int(exited[2] or -signal.SIGTERM)) if exited else None
