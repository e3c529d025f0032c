"""One forward pass through a model that does not fit into memory: block by block from the disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map


class _StreamedBlock:
    """A transformer block that is read from the disk when it is called, and dropped from memory after that."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        outputs = self.block(*inputs, **named)
        mx.eval(outputs)
        self.block.update(tree_map(lambda _: mx.zeros(()), self.block.parameters()))
        mx.clear_cache()
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)


def next_token_logprobs(
    model: nn.Module, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """For each row ln p(next token) after each of its positions: float32 of shape (positions, vocabulary).

    model: its weights still on the disk (`loading.open_lazily`); it can be used once. All rows pass together, padded on
    the right, so that each weight is read once; memory holds one block, the embedding, and the logits of all rows.
    """
    blocks = model.layers
    blocks[:] = [_StreamedBlock(block) for block in blocks]
    longest = max(map(len, rows))
    ids = mx.array([[*row, *[0] * (longest - len(row))] for row in rows])
    logits = model(ids)
    found = []
    for row, wanted in enumerate(positions):
        chosen = logits[row][mx.array(list(wanted))].astype(mx.float32)
        found.append(np.array(chosen - mx.logsumexp(chosen, axis=-1, keepdims=True)))
    return found
