"""A language model of MLX whose weights stay on the disk: one block at a time is in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence, Set
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import Completion, GenerationRequest, LoglikelihoodRequest


class StreamedModel:
    """A model that is read from the disk block by block, for one pass over all rows: it does not generate."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
        """Not offered: each row would read the whole model."""
        raise NotImplementedError

    def generate(
        self, requests: Sequence[GenerationRequest], *, stop_ids: Set[int], sampling: Sampling
    ) -> Iterator[Completion]:
        """Not offered: each token would read the whole model."""
        raise NotImplementedError

    def stream(self, request: GenerationRequest, *, stop_ids: Set[int], sampling: Sampling) -> Iterator[int]:
        """Not offered: each token would read the whole model."""
        raise NotImplementedError

    def next_token_logprobs(
        self, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """For each row, ln p(next token) after each of its positions; all rows pass together, and only once."""
        yield from _streamed_logprobs(self.model, rows, positions)

    def adapter_norm_ratio(self) -> float | None:
        """Not offered: the weights are on the disk."""
        raise NotImplementedError

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[bool]:
        """Not possible: what was read is gone."""
        yield False

    def close(self) -> None:
        """Drop what is left in memory."""
        del self.model


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


def _streamed_logprobs(
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
