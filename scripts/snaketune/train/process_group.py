"""Collective operations between the worker processes of a training; with a single process each is the identity.

All processes call the same methods in the same order. Gradients are summed, so that every process makes the same step
of the same weights; what must not differ by a rounding between unlike machines (weights, decisions) is broadcast. An
engine's own group reduces its tensors, and the numbers that this one asks for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

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

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size
        self.is_main = rank == 0
        self.num_collectives, self.is_waiting = 0, False
        self.stop_signal = 0

    def shard(self, items: Shardable) -> Shardable:
        """This process's part of some rows or batches."""
        return items[self.rank :: self.world_size]

    def all_reduce_counts(self, *counts: int) -> list[int]:
        """Each count summed over all processes."""
        return self.reduce_numbers("sum", counts)

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """The largest of each over all processes."""
        return self.reduce_numbers("max", numbers)

    def broadcast_object(self, value: T, type: Any) -> T:
        """The main process's value of a type that msgspec knows; NaN and infinity are kept."""
        if self.world_size == 1:
            return value
        text = json.dumps(msgspec.to_builtins(value)).encode() if self.is_main else b""
        (length,) = self.all_reduce_counts(len(text))
        content = bytes(self.reduce_numbers("sum", list(text) or [0] * length))
        received: T = msgspec.convert(json.loads(content), type)
        return received

    def reduce_numbers(self, operation: str, numbers: Sequence[int]) -> list[int]:
        """32-bit integers reduced over all processes, by "sum" or "max"; an engine's group does it."""
        assert self.world_size == 1, operation
        return list(numbers)
