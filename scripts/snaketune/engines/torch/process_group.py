"""Collective operations between processes by torch.distributed: gloo on CPUs, NCCL between NVIDIA cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed

from snaketune.train.process_group import PeerLostError, ProcessGroup


class TorchProcessGroup(ProcessGroup):
    """The process group that torchrun has described in this process's environment."""

    def __init__(self, device: torch.device) -> None:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
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
