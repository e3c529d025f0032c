"""A language model of MLX: the part `engines.interface.AdaptedModel`, in memory or streamed from the disk."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence, Set
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map, tree_unflatten

from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import Completion, GenerationRequest, LoadOptions, LoglikelihoodRequest
from snaketune.engines.mlx import inference, loading
from snaketune.engines.mlx.inference import loglikelihoods, next_token_logprobs
from snaketune.engines.mlx.loading import dequantized_weight
from snaketune.files import StrPath


def load(path: StrPath, options: LoadOptions) -> MLXModel | StreamedModel:
    """Load a model folder; see `engines.interface.ModelLoader`."""
    dtype = "float32" if options.exact else options.dtype
    if options.layer_by_layer:
        opened = loading.open_lazily(path, dtype=dtype, adapter=options.adapter, dequantize=options.exact)
        return StreamedModel(opened.model)
    return MLXModel(loading.load(path, dtype=dtype, adapter=options.adapter, dequantize=options.exact).model)


class MLXModel:
    """A model whose weights are in memory."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @functools.cached_property
    def _batched(self) -> bool:
        """Measured at the first generation, since it takes forward passes that scoring has no use for."""
        return inference.supports_ragged_prefill(self.model)

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
        """The log-probability of each row's masked tokens, in nats."""
        return loglikelihoods(self.model, requests)

    def generate(
        self, requests: Sequence[GenerationRequest], *, stop_ids: Set[int], sampling: Sampling
    ) -> Iterator[Completion]:
        """Completions as they end."""
        return inference.generate(self.model, requests, stop_ids, sampling, batched=self._batched)

    def stream(self, request: GenerationRequest, *, stop_ids: Set[int], sampling: Sampling) -> Iterator[int]:
        """The tokens of one completion as they are drawn."""
        return inference.stream(self.model, request, stop_ids, sampling)

    def next_token_logprobs(
        self, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """For each row, ln p(next token) after each of its positions."""
        for ids, wanted in zip(rows, positions, strict=True):
            yield next_token_logprobs(self.model, ids, wanted)

    def relative_update_norm(self) -> float | None:
        """The size of the adapter's update, relative to the weights that it changes."""
        return relative_update_norm(self.model)

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[bool]:
        """Take the adapter's layers off for the duration of the block, where it has layers of its own."""
        adapted = {name: module for name, module in self.model.named_modules() if "lora_a" in module}
        plain = {name: module.get("linear", module.get("embedding")) for name, module in adapted.items()}
        self.model.update_modules(tree_unflatten(list(plain.items())))
        try:
            yield bool(adapted)
        finally:
            self.model.update_modules(tree_unflatten(list(adapted.items())))

    def close(self) -> None:
        """Drop the weights, which frees their memory."""
        del self.model


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

    def relative_update_norm(self) -> float | None:
        """Not offered: the weights are on the disk."""
        raise NotImplementedError

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[bool]:
        """Not possible: what was read is gone."""
        yield False

    def close(self) -> None:
        """Drop what is left in memory."""
        del self.model


def relative_update_norm(model: nn.Module) -> float | None:
    """Frobenius norm of all low-rank updates over that of the weights they are added to; None without an adapter.

    A useful adapter stays below 1. The norm of a product comes from the two r x r Gram matrices, so no update is
    ever materialized.
    """
    updates = weights = 0.0
    for _, module in model.named_modules():
        inner = getattr(module, "linear", None)
        if not hasattr(module, "lora_a") or inner is None:
            continue
        first, second = module.lora_a.astype(mx.float32), module.lora_b.astype(mx.float32)
        if first.ndim == 3:  # a mixture's experts: (experts, r, inputs) and (experts, outputs, r)
            grams = (first @ first.swapaxes(-1, -2)) * (second.swapaxes(-1, -2) @ second)
        else:  # (inputs, r) and (r, outputs)
            grams = (first.T @ first) * (second @ second.T)
        updates += float(module.scale) ** 2 * float(grams.sum().item())
        weights += float(mx.square(dequantized_weight(inner)).sum().item())  # type: ignore[arg-type]
    return math.sqrt(updates / weights) if weights else None


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
