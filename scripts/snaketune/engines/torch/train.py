"""Trains an adapter with PyTorch: the part `engines.interface.Trainer`; several processes are started by torchrun."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import msgspec

from snaketune.config import experiments
from snaketune.contracts.train import TrainingJob, TrainingSummary
from snaketune.engines.torch.device import best_device, peak_memory
from snaketune.engines.torch.trainable_model import TorchTrainableModel
from snaketune.runtime.code_digest import code_digest
from snaketune.train import launcher, training
from snaketune.train.metrics_log import TrainingCallback

FAILED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")


def train(job: TrainingJob, callback: TrainingCallback | None = None) -> TrainingSummary:
    """Run a training; see `engines.interface.Trainer`."""
    return training.train(job, training_engine(), callback)


def training_engine() -> training.TrainingEngine:
    """What PyTorch adds to a training."""
    return training.TrainingEngine(
        load_model=TorchTrainableModel,
        launch=launch,
        code=code_digest(__file__),
        versions=[version("torch"), version("transformers")],
        peak_memory=lambda: peak_memory(best_device()),
    )


def launch(job: TrainingJob, callback: TrainingCallback) -> None:
    """Run a training on several processes; see `train.launcher`."""
    launcher.train(job, callback, launch_command(job), find_exit)


def launch_command(job: TrainingJob) -> list[str]:
    """The command line of torchrun; for several hosts, a shell that starts one on each."""
    names = experiments.host_list(job.config.hosts)
    port = launcher.free_ports(1)
    if len(names) == 1:
        return torchrun(job, "127.0.0.1", port, job.config.workers)
    each = job.config.workers // len(names)
    commands = []
    for number, name in enumerate(names):
        command = torchrun(job, names[0], port, each, nodes=len(names), node=number)
        commands.append(
            shlex.join(["ssh", "-tt" if number else "-T", name, f"cd {Path.cwd()} && {shlex.join(command)}"])
        )
    return ["bash", "-c", " & ".join([*(f"{one} < /dev/null" for one in commands[1:]), f"{commands[0]}; wait"])]


def torchrun(job: TrainingJob, master: str, port: int, processes: int, *, nodes: int = 1, node: int = 0) -> list[str]:
    """One host's torchrun; `master` is the host whose port all processes meet at."""
    scripts = Path(__file__).resolve().parents[3]
    return [
        *("env", f"PYTHONPATH={scripts}", "TORCH_CPP_LOG_LEVEL=ERROR"),
        *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", f"--node-rank={node}"),
        *(f"--nproc-per-node={processes}", f"--master-addr={master}", f"--master-port={port}"),
        *("-m", "snaketune.engines.torch.worker", msgspec.json.encode(job).decode()),
    ]


def find_exit(line: str) -> tuple[int, int] | None:
    """(rank, exit code) of a worker that torchrun says has failed first; local ranks, on one host the ranks."""
    failed = FAILED.search(line)
    return (int(failed[2]), int(failed[1])) if failed else None
