"""Collective operations between processes by torch.distributed: gloo on CPUs, NCCL between NVIDIA cards."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from snaketune.errors import ConfigError
from snaketune.train.process_group import PeerLostError, ProcessGroup


def check_workers(num_workers: int) -> None:
    """Raise ConfigError where so many workers cannot train on this machine's device."""
    if torch.cuda.is_available():
        if num_workers > (num_cards := torch.cuda.device_count()):
            raise ConfigError(
                f"{num_workers} workers were started on a machine with fewer cards ({num_cards})",
                where="train.workers",
                why="NCCL, by which they exchange gradients, needs a card for each",
                fix=f"Set train.workers to {num_cards} for each host of train.hosts, or to fewer",
            )
    elif torch.backends.mps.is_available():
        raise ConfigError(
            "the torch engine does not train on several Apple GPUs",
            where="train.workers",
            why="gloo, by which the workers exchange gradients, knows no tensors of MPS",
            fix="Set engine: mlx, or train.workers: 1",
        )


class TorchProcessGroup(ProcessGroup):
    """The process group that torchrun has described in this process's environment.

    timeout: seconds after which the backend gives up a collective operation.
    """

    def __init__(self, device: torch.device, timeout: float) -> None:
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(seconds=timeout))
        super().__init__(distributed.get_rank(), distributed.get_world_size())
        self._device = device

    def all_reduce_(self, tensor: torch.Tensor) -> None:
        """Sum a tensor over all processes, in its place."""
        self._call(distributed.all_reduce, tensor)

    def broadcast_(self, tensor: torch.Tensor) -> None:
        """Overwrite a tensor by the main process's, to the bit."""
        self._call(distributed.broadcast, tensor, src=0)

    def broadcast_tensors(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The main process's tensors, by name; those of the others are not looked at."""
        described = {name: (list(one.shape), str(one.dtype).removeprefix("torch.")) for name, one in tensors.items()}
        wanted = self.broadcast_object(described, dict[str, tuple[list[int], str]])
        received = {}
        for name, (shape, dtype) in wanted.items():
            empty = torch.empty(shape, dtype=getattr(torch, dtype), device=self._device)
            received[name] = tensors[name].to(self._device) if self.is_main else empty
            self.broadcast_(received[name])
        return received

    def reduce_numbers(self, operation: str, numbers: Sequence[int]) -> list[int]:
        tensor = torch.tensor(list(numbers), dtype=torch.int64, device=self._device)
        reduce = distributed.ReduceOp.SUM if operation == "sum" else distributed.ReduceOp.MAX
        self._call(distributed.all_reduce, tensor, op=reduce)
        return [int(number) for number in tensor.tolist()]

    def _call(self, collective: Any, tensor: torch.Tensor, **options: Any) -> None:
        self.num_collectives, self.is_waiting = self.num_collectives + 1, True
        try:
            collective(tensor, **options)
        except RuntimeError as error:
            raise PeerLostError(str(error)) from error
        self.is_waiting = False
