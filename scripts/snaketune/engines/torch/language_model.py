"""A language model of PyTorch: the part `engines.interface.AdaptedModel`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import Completion, GenerationRequest, LoadOptions, LoglikelihoodRequest
from snaketune.engines.torch import inference, loading, lora
from snaketune.errors import EvaluationError
from snaketune.files import StrPath


def load(path: StrPath, options: LoadOptions) -> TorchModel:
    """Load a model folder; see `engines.interface.ModelLoader`.

    layer_by_layer: weights stay in the model's own format, and one block at a time is made float32 while it computes.
    """
    dtype = "float32" if options.exact and not options.layer_by_layer else options.dtype
    model = loading.load(path, dtype="stored" if options.layer_by_layer else dtype)
    if options.adapter is not None:
        loading.apply_adapter(model, options.adapter, loading.adapter_prefix(path))
    if options.layer_by_layer:
        compute_in_float32(model)
    return TorchModel(model)


class TorchModel:
    """A model whose weights are in memory."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
        """The log-probability of each row's masked tokens, in nats."""
        with _failures():
            yield from inference.loglikelihoods(self.model, requests)

    def generate(
        self, requests: Sequence[GenerationRequest], *, stop_ids: Set[int], sampling: Sampling
    ) -> Iterator[Completion]:
        """Completions as they end."""
        with _failures():
            yield from inference.generate(self.model, requests, stop_ids, sampling)

    def stream(self, request: GenerationRequest, *, stop_ids: Set[int], sampling: Sampling) -> Iterator[int]:
        """The tokens of one completion as they are drawn."""
        with _failures():
            yield from inference.stream(self.model, request, stop_ids, sampling)

    def next_token_logprobs(
        self, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """For each row, ln p(next token) after each of its positions."""
        with _failures():
            for ids, wanted in zip(rows, positions, strict=True):
                yield inference.next_token_logprobs(self.model, ids, wanted)

    def relative_update_norm(self) -> float | None:
        """The size of the adapter's update, relative to the weights that it changes."""
        return relative_update_norm(self.model)

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[bool]:
        """Leave the adapter's layers out for the duration of the block, where it has layers of its own."""
        layers = list(lora.adapter_layers(self.model).values())
        for layer in layers:
            layer.enabled = False
        try:
            yield bool(layers)
        finally:
            for layer in layers:
                layer.enabled = True

    def close(self) -> None:
        """Drop the weights, which frees their memory."""
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Turn an allocation or a computation that failed into an EvaluationError."""
    try:
        yield
    except RuntimeError as error:
        raise EvaluationError(
            f"the model failed to compute ({str(error).splitlines()[0]})",
            where="evaluate",
            fix="Lower evaluate.max_new_tokens or data.max_length, or use a machine with more memory",
        ) from error


@torch.no_grad()
def relative_update_norm(model: PreTrainedModel) -> float | None:
    """Frobenius norm of all low-rank updates over that of the weights they are added to; None without an adapter.

    A useful adapter stays below 1. The norm of a product comes from the two r x r Gram matrices, so no update is
    ever materialized.
    """
    updates = weights = 0.0
    for layer in lora.adapter_layers(model).values():
        first, second = layer.lora_a.float(), layer.lora_b.float()  # (inputs, r) and (r, outputs)
        grams = (first.T @ first) * (second @ second.T)
        updates += layer.scale**2 * float(grams.sum())
        weights += float(lora.dense_weight(layer.linear).square().sum())
    return math.sqrt(updates / weights) if weights else None


def compute_in_float32(model: PreTrainedModel) -> None:
    """Change how a model computes: every part is float32 while it runs, and as it was loaded after that."""
    for block in lora.blocks(model):
        block.register_forward_pre_hook(_widen)
        block.register_forward_hook(_restore)
    in_blocks = {id(one) for block in lora.blocks(model) for one in block.parameters()}
    for one in model.parameters():  # embeddings, head and norms are read by many parts
        if id(one) not in in_blocks:
            one.data = one.data.float()


def _widen(block: nn.Module, *_: Any) -> None:
    block._narrow = {one: one.data for one in block.parameters()}  # type: ignore[assignment]
    for one in block.parameters():
        one.data = one.data.float()


def _restore(block: nn.Module, *_: Any) -> None:
    for one, narrow in block._narrow.items():  # type: ignore[union-attr, operator]
        one.data = narrow
    del block._narrow
