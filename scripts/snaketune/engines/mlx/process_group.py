"""Collective operations between the worker processes of a training by MLX; with a single process each is the identity.

Tensors are sent one by one in the order of their names.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from snaketune.engines.mlx.loading import Tensors
from snaketune.train.process_group import PeerLostError, ProcessGroup


class MLXProcessGroup(ProcessGroup):
    """This process in MLX's group; a process of its own without one."""

    def __init__(self, group: mx.distributed.Group | None = None) -> None:
        super().__init__(*(group.rank(), group.size()) if group else (0, 1))
        self._group = group

    def all_reduce(self, tensors: Tensors) -> Tensors:
        """Tensors summed over all processes in float32."""
        if not self._group:
            return tensors
        mine = {name: tensor.astype(mx.float32) for name, tensor in sorted(tensors.items())}
        return {name: self._reduce("sum", tensor).astype(tensors[name].dtype) for name, tensor in mine.items()}

    def broadcast_arrays(self, tensors: Tensors) -> Tensors:
        """The main process's tensors, to the bit; the others give theirs for names, shapes and types."""
        if not self._group:
            return tensors
        mine = {name: one if self.is_main else mx.zeros_like(one) for name, one in sorted(tensors.items())}
        return {name: self._reduce("sum", tensor) for name, tensor in mine.items()}

    def reduce_numbers(self, operation: str, numbers: Sequence[int]) -> list[int]:
        if not self._group:
            return list(numbers)
        reduced = self._reduce(operation, mx.array(list(numbers), mx.int32))
        return [int(number) for number in np.array(reduced)]

    def _reduce(self, operation: str, array: mx.array) -> mx.array:
        reduce = mx.distributed.all_sum if operation == "sum" else mx.distributed.all_max
        mx.eval(array)  # this process's own work: only what follows is waiting
        self.num_collectives, self.is_waiting = self.num_collectives + 1, True
        try:
            reduced = reduce(array, group=self._group)
            mx.eval(reduced)
        except RuntimeError as error:
            raise PeerLostError(str(error)) from error
        self.is_waiting = False
        return reduced
