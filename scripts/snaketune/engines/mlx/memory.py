"""Keeps a training within the memory: limits, and blocks that compute twice.

A transformer block can be wrapped so that its backward pass computes its forward pass again instead of keeping what it
needs (gradient checkpointing). Each call of a block seeds MLX's generator from (seed, step, number of the call). So
dropout needs no state in a checkpoint, and a block that runs a second time drops the same inputs as the first time.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from snaketune.engines.mlx.loading import Tensors

BlockCall = Callable[..., Any]  # a block's `__call__`: (block, hidden states, mask, cache) as the architecture has it


class DropoutSeeds:
    """Seeds for the calls of blocks within a step; each worker process (`rank`) has seeds of its own."""

    def __init__(self, seed: int, rank: int = 0) -> None:
        self._seed, self._first_call = seed, rank << 32
        self.start(0)

    def start(self, step: int) -> None:
        """Begin a step: its seeds depend on nothing that came before."""
        self._step, self._call = step, self._first_call

    def next(self) -> int:
        """The seed of the next call of a block."""
        self._call += 1
        packed = struct.pack("<QQQ", self._seed, self._step, self._call)
        return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def wrap_blocks(model: nn.Module, seeds: DropoutSeeds, *, recompute: bool) -> None:
    """Change how the blocks of this model are called, and of no other; recompute: gradient checkpointing."""
    for layer in model.layers:
        plain = type(layer)
        call = _checkpointed(plain.__call__, seeds) if recompute else _seeded(plain.__call__, seeds)
        layer.__class__ = type(plain.__name__, (plain,), {"__call__": call})


def _seeded(call: BlockCall, seeds: DropoutSeeds) -> BlockCall:
    def seeded(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        mx.random.seed(seeds.next())
        return call(layer, *args, **kwargs)

    return seeded


def _checkpointed(call: BlockCall, seeds: DropoutSeeds) -> BlockCall:
    def checkpointed(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        seed = seeds.next()

        def recompute(parameters: Tensors, *args: Any, **kwargs: Any) -> Any:
            layer.update(parameters)
            mx.random.seed(seed)
            return call(layer, *args, **kwargs)

        return mx.checkpoint(recompute)(layer.trainable_parameters(), *args, **kwargs)

    return checkpointed


GB = 10**9
BUFFER_CACHE_BYTES = GB  # freed buffers that an accelerator may keep; changing row lengths would let them grow


def set_memory_limits(gigabytes: float | None) -> None:
    """Hand the limit to MLX, and let it pin what the accelerator recommends."""
    if gigabytes is not None:
        mx.set_memory_limit(int(gigabytes * GB))
    if mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
    if mx.default_device() != mx.cpu:
        mx.set_cache_limit(BUFFER_CACHE_BYTES)
