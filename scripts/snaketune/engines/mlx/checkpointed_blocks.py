"""The blocks of a model, made to draw their dropout from the update's number, and to recompute their activations.

Each call of a block seeds MLX's generator from (seed, update, number of the call). So dropout needs no state in a
checkpoint, and a block that runs a second time for its gradient drops the same inputs as the first time.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn


class Draws:
    """Seeds for the calls of blocks within an update; each of several workers has numbers of its own."""

    def __init__(self, seed: int, worker: int = 0) -> None:
        self._seed, self._before = seed, worker << 32
        self.start(0)

    def start(self, update: int) -> None:
        self._update, self._call = update, self._before

    def next(self) -> int:
        self._call += 1
        packed = struct.pack("<QQQ", self._seed, self._update, self._call)
        return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def prepare(model: nn.Module, draws: Draws, *, recompute: bool) -> None:
    """Change how this model's blocks are called, and no other model's; recompute: gradient checkpointing."""
    for layer in model.layers:
        plain = type(layer)
        called = _recomputed(plain.__call__, draws) if recompute else _seeded(plain.__call__, draws)
        layer.__class__ = type(plain.__name__, (plain,), {"__call__": called})


def _seeded(call: Callable[..., Any], draws: Draws) -> Callable[..., Any]:
    def seeded(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        mx.random.seed(draws.next())
        return call(layer, *args, **kwargs)

    return seeded


def _recomputed(call: Callable[..., Any], draws: Draws) -> Callable[..., Any]:
    def recomputed(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        seed = draws.next()

        def again(parameters: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            layer.update(parameters)
            mx.random.seed(seed)
            return call(layer, *args, **kwargs)

        return mx.checkpoint(again)(layer.trainable_parameters(), *args, **kwargs)

    return recomputed
