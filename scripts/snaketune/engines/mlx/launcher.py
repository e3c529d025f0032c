"""Starts the workers of a training with `mlx.launch`."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import msgspec

from snaketune.config import experiments
from snaketune.contracts.train import TrainingJob
from snaketune.train import launcher
from snaketune.train.metrics_log import TrainingCallback

EXITED = re.compile(r"Node with rank (\d+) (?:was killed|exited with code (-?\d+))")


def train(job: TrainingJob, callback: TrainingCallback) -> None:
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
