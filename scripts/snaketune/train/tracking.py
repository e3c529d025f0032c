"""What a training does beside training: sends its numbers elsewhere, keeps the machine awake, runs the notify command.

TensorBoard and W&B stand behind one small interface.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from snaketune.contracts.train import TrainingJob
from snaketune.errors import ConfigError
from snaketune.runtime.events import report_warning

NOTIFY_TIMEOUT = 60.0  # seconds that the command may take


@contextlib.contextmanager
def keep_awake() -> Iterator[None]:
    """Keep macOS from sleeping while the block runs; `caffeinate -w` ends with this process, however it ends."""
    if sys.platform != "darwin":
        yield
        return
    caffeinate = subprocess.Popen(["caffeinate", "-i", "-w", str(os.getpid())])
    try:
        yield
    finally:
        caffeinate.terminate()
        caffeinate.wait()


@contextlib.contextmanager
def notify_on_exit(command: str | None, task: str) -> Iterator[None]:
    """Run a shell command when the block ends, well or not.

    It finds SNAKETUNE_RUN (`task`), SNAKETUNE_STATUS (`done` or `failed`) and SNAKETUNE_MESSAGE in its environment.
    A command that fails is reported on stderr and changes nothing.
    """
    try:
        yield
    except BaseException as error:
        _notify(command, task, "failed", str(error) or type(error).__name__)
        raise
    _notify(command, task, "done", "")


def _notify(command: str | None, task: str, status: str, message: str) -> None:
    if not command:
        return
    variables = {"SNAKETUNE_RUN": task, "SNAKETUNE_STATUS": status, "SNAKETUNE_MESSAGE": message}
    try:
        process = subprocess.run(command, shell=True, env=os.environ | variables, timeout=NOTIFY_TIMEOUT, check=False)
        problem = f"exit code {process.returncode}" if process.returncode else ""
    except (OSError, subprocess.SubprocessError) as error:
        problem = str(error)
    if problem:
        report_warning(f"train.notify failed ({problem})")


class Tracker(Protocol):
    """Takes the numbers of each step. A resumed run sends some of them a second time."""

    def log(self, step: int, numbers: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class NullTracker:
    """Tracking switched off."""

    def log(self, step: int, numbers: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._writer = _import("tensorboardX").SummaryWriter(str(folder))

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A W&B run that goes on when the training does; account and project come from W&B's own environment variables."""

    def __init__(self, folder: Path, training_id: str, job: TrainingJob) -> None:
        self._run = _import("wandb").init(
            project="snaketune",
            dir=str(folder),
            id=training_id,
            resume="allow",
            config={**msgspec.to_builtins(job.config), "dtype": job.dtype, "seed": job.seed},
        )

    def log(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()


def open_tracker(folder: Path, training_id: str, job: TrainingJob) -> Tracker:
    """The tracker that `train.report_to` names, writing below `folder`; training_id names the training."""
    if job.config.report_to == "tensorboard":
        return TensorBoard(folder / "tensorboard")
    if job.config.report_to == "wandb":
        return WeightsAndBiases(folder, training_id, job)
    return NullTracker()


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"{module} is not installed",
            where="train.report_to",
            fix=f"Run `pip install {module}`, or set it to null",
        ) from None
