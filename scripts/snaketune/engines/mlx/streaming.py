"""One float32 pass through a model that does not fit into memory in float32: layer after layer, from the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from snaketune.engines.mlx import loading
from snaketune.files import StrPath


class _Streamed:
    """A block that is read from the disk when it is called, and dropped from memory after that."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        said = self.block(*inputs, **named)
        mx.eval(said)
        self.block.update(tree_map(lambda _: mx.zeros(()), self.block.parameters()))
        mx.clear_cache()
        return said

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)


def distributions(
    folder: StrPath,
    rows: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]],
    *,
    adapter: StrPath | None = None,
    prepare: Callable[[nn.Module], None] | None = None,
) -> list[np.ndarray]:
    """For each row ln p(next token) after each of its places: float32 of shape (places, vocabulary).

    All rows pass together, padded on the right, so that each weight is read once; what is in memory is one block, the
    embedding, and the logits of all rows. `prepare` may change the model, whose weights are still on the disk.
    """
    model = loading.open_lazily(folder, dtype="float32", adapter=adapter).model
    if prepare:
        prepare(model)
    blocks = model.layers
    blocks[:] = [_Streamed(block) for block in blocks]
    longest = max(map(len, rows))
    ids = mx.array([[*row, *[0] * (longest - len(row))] for row in rows])
    logits = model(ids)
    found = []
    for number, wanted in enumerate(places):
        chosen = logits[number][mx.array(list(wanted))].astype(mx.float32)
        found.append(np.array(chosen - mx.logsumexp(chosen, axis=-1, keepdims=True)))
    return found
