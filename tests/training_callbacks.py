"""Callbacks that stop, kill or disturb a training at a given step."""

from __future__ import annotations

import os
from collections.abc import Sequence

import psutil
from snaketune.train.metrics_log import TrainingCallback, WorkerProgress


class Stopped(BaseException):
    """As sudden as a kill, but within the process."""


class StopAt(TrainingCallback):
    """Raises `error` at the beginning of a step."""

    def __init__(self, step: int, error: BaseException | type[BaseException] = Stopped) -> None:
        self.step, self.error = step, error

    def on_step_begin(self, step: int) -> None:
        if step == self.step:
            raise self.error


class SignalAt(TrainingCallback):
    """Sends a signal to this process at the beginning of a step."""

    def __init__(self, step: int, signal_number: int) -> None:
        self.step, self.signal_number = step, signal_number

    def on_step_begin(self, step: int) -> None:
        if step == self.step:
            os.kill(os.getpid(), self.signal_number)


class DisturbWorker(TrainingCallback):
    """Calls `disturb` once with the process of a worker that has begun so many collective operations."""

    def __init__(self, disturb, rank: int = 1, num_collectives: int = 25) -> None:
        self.disturb, self.rank, self.num_collectives, self.done = disturb, rank, num_collectives, False

    def on_workers(self, workers: Sequence[WorkerProgress]) -> None:
        if not self.done and workers[self.rank].num_collectives > self.num_collectives:
            self.done = True
            below = psutil.Process().children(recursive=True)
            self.disturb(next(one for one in below if one.environ().get("MLX_RANK") == str(self.rank)))
