"""Collective operations between the worker processes of a training; with a single process each is the identity.

All processes call the same methods in the same order. Gradients are summed, so that every process makes the same step
of the same weights; what must not differ by a rounding between unlike machines (weights, decisions) is broadcast.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import mlx.core as mx
import msgspec
import numpy as np

from snaketune.engines.mlx.loading import Tensors

T = TypeVar("T")
Shardable = TypeVar("Shardable", Sequence[Any], np.ndarray)


class PeerLostError(Exception):
    """Another process is gone, so a collective operation cannot be completed."""


class ProcessGroup:
    """This process (`rank`) among `world_size`; the main process, of rank 0, writes the files.

    num_collectives counts the collective operations that were begun; is_waiting: one has not been answered yet.
    stop_signal: the number of a signal that asks this process to stop, 0 for none. Raises PeerLostError when another
    process is gone.
    """

    def __init__(self, group: mx.distributed.Group | None = None) -> None:
        self._group = group
        self.rank, self.world_size = (group.rank(), group.size()) if group else (0, 1)
        self.is_main = self.rank == 0
        self.num_collectives, self.is_waiting = 0, False
        self.stop_signal = 0

    def shard(self, items: Shardable) -> Shardable:
        """This process's part of some rows or batches."""
        return items[self.rank :: self.world_size]

    def all_reduce_counts(self, *counts: int) -> list[int]:
        """Each count summed over all processes."""
        return self._reduce_numbers("sum", counts)

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """The largest of each over all processes."""
        return self._reduce_numbers("max", numbers)

    def all_reduce(self, tensors: Tensors) -> Tensors:
        """Tensors summed over all processes in float32; they are sent one by one in the order of their names."""
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

    def broadcast_object(self, value: T, type: Any) -> T:
        """The main process's value of a type that msgspec knows; NaN and infinity are kept."""
        if not self._group:
            return value
        text = json.dumps(msgspec.to_builtins(value)).encode() if self.is_main else b""
        (length,) = self.all_reduce_counts(len(text))
        content = bytes(self._reduce_numbers("sum", list(text) or [0] * length))
        received: T = msgspec.convert(json.loads(content), type)
        return received

    def _reduce_numbers(self, operation: str, numbers: Sequence[int]) -> list[int]:
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
