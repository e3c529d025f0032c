"""A language model of PyTorch: the part `engines.interface.AdaptedModel`.

Prompts of like length go through together. Completions are generated over transformers' caches; finished rows
are taken out as they end.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from snaketune.engines.decoding import Sampling, sample_token
from snaketune.engines.interface import Completion, GenerationRequest, LoadOptions, LoglikelihoodRequest
from snaketune.engines.torch import loading, lora, loss, prompt_embedding
from snaketune.engines.torch.capabilities import COMPLETION_BATCH
from snaketune.engines.torch.device import best_device
from snaketune.engines.torch.prompt_embedding import PromptEmbedding
from snaketune.errors import EvaluationError
from snaketune.files import StrPath


def load(path: StrPath, options: LoadOptions) -> TorchModel:
    """Load a model folder; see `engines.interface.ModelLoader`.

    layer_by_layer: blocks stay in the machine's memory in the model's own format; while one computes it is on the
    device in float32.
    """
    if options.layer_by_layer:
        model = loading.load(path, dtype="stored", to_device=False)
    else:
        model = loading.load(path, dtype="float32" if options.exact else options.dtype)
    if options.adapter is not None:
        loading.apply_adapter(model, options.adapter, loading.adapter_prefix(path))
    if options.layer_by_layer:
        compute_in_float32(model, best_device())
    return TorchModel(model)


class TorchModel:
    """A model whose weights are in memory."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @functools.cached_property
    def _head(self) -> loss.ChunkedCrossEntropy:
        """Measured at the first row that is read; an adapter that is left out leaves the head as it is."""
        return loss.ChunkedCrossEntropy(self.model)

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
        """The log-probability of each row's masked tokens, in nats."""
        with _failures():
            yield from loss.loglikelihoods(self._head, requests)

    def generate(
        self, requests: Sequence[GenerationRequest], *, stop_ids: Set[int], sampling: Sampling
    ) -> Iterator[Completion]:
        """Completions as they end."""
        with _failures():
            yield from generate(self.model, requests, stop_ids, sampling)

    def stream(self, request: GenerationRequest, *, stop_ids: Set[int], sampling: Sampling) -> Iterator[int]:
        """The tokens of one completion as they are drawn."""
        with _failures():
            yield from stream(self.model, request, stop_ids, sampling)

    def next_token_logprobs(
        self, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """For each row, ln p(next token) after each of its positions."""
        with _failures():
            yield from loss.next_token_logprobs(self._head, rows, positions)

    def adapter_norm_ratio(self) -> float | None:
        """The size of what was learned, relative to the weights that it changes or stands among."""
        return adapter_norm_ratio(self.model)

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[bool]:
        """Leave the adapter's layers out for the duration of the block, where it has layers of its own.

        Without virtual tokens, a model after prompt tuning is its base as it stands.
        """
        layers = list(lora.adapter_layers(self.model).values())
        for layer in layers:
            layer.enabled = False
        try:
            yield bool(layers) or prompt_embedding.find(self.model) is not None
        finally:
            for layer in layers:
                layer.enabled = True

    def close(self) -> None:
        """Drop the weights, which frees their memory."""
        self.__dict__.pop("_head", None)
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
def adapter_norm_ratio(model: PreTrainedModel) -> float | None:
    """Frobenius norm of all low-rank updates over that of the weights they are added to; see `AdaptedModel`.

    A useful adapter stays below 1. The norm of a product comes from the two r x r Gram matrices, so no update is
    ever materialized.
    """
    tuned = prompt_embedding.find(model)
    if tuned is not None:
        return _prompt_norm_ratio(tuned)
    updates = weights = 0.0
    for layer in lora.adapter_layers(model).values():
        first, second = layer.lora_a.float(), layer.lora_b.float()  # (inputs, r) and (r, outputs)
        grams = (first.T @ first) * (second @ second.T)
        updates += layer.scale**2 * float(grams.sum())
        weights += float(lora.dense_weight(layer.linear).square().sum())
    return math.sqrt(updates / weights) if weights else None


ROW_CHUNK = 8192  # rows of the embedding that are float32 at once


def _prompt_norm_ratio(tuned: PromptEmbedding) -> float:
    """Norm of the longest learned vector over the root mean square of the norms of the embedding's rows."""
    rows = tuned.weight.detach()
    typical = math.sqrt(sum(float(part.float().square().sum()) for part in rows.split(ROW_CHUNK)) / len(rows))
    return float(tuned.prompt.detach().float().norm(dim=-1).max()) / typical


def compute_in_float32(model: PreTrainedModel, device: torch.device) -> None:
    """Change how a model computes: every part is float32 and on the device while it runs, and as it was after that."""
    for block in lora.blocks(model):
        block.register_forward_pre_hook(functools.partial(_widen, device))
        block.register_forward_hook(_restore)
    in_blocks = ids_in_blocks(model)
    for one in model.parameters():  # embeddings, head and norms are read by many parts
        if id(one) not in in_blocks:
            one.data = one.data.to(device, torch.float32)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(device)


def ids_in_blocks(model: PreTrainedModel) -> set[int]:
    """The `id` of each parameter of a transformer block."""
    return {id(one) for block in lora.blocks(model) for one in block.parameters()}


def _widen(device: torch.device, block: nn.Module, *_: Any) -> None:
    block._narrow = {one: one.data for one in block.parameters()}  # type: ignore[assignment]
    for one in block.parameters():
        one.data = one.data.to(device, torch.float32)


def stored_weights(block: nn.Module) -> dict[nn.Parameter, torch.Tensor]:
    """What the parameters of a block that is float32 for now were before, and will be again."""
    return block._narrow  # type: ignore[return-value]


def _restore(block: nn.Module, *_: Any) -> None:
    for one, narrow in block._narrow.items():  # type: ignore[union-attr, operator]
        one.data = narrow
    del block._narrow


@dataclass
class _Row:
    """A completion in the making."""

    index: int
    request: GenerationRequest
    random: np.random.Generator
    new_tokens: list[int] = field(default_factory=list)


@torch.no_grad()
def generate(
    model: PreTrainedModel, requests: Sequence[GenerationRequest], stop_ids: Set[int], sampling: Sampling
) -> Iterator[Completion]:
    """Completions as they end; see `engines.interface.LanguageModel.generate`."""
    order = sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt_ids), requests[i].max_new_tokens, i))
    for start in range(0, len(order), COMPLETION_BATCH):
        rows = [
            _Row(index, requests[index], np.random.default_rng(requests[index].seed))
            for index in order[start : start + COMPLETION_BATCH]
        ]
        yield from _generate_batch(model, rows, stop_ids, sampling)


def _generate_batch(
    model: PreTrainedModel, rows: list[_Row], stop_ids: Set[int], sampling: Sampling
) -> Iterator[Completion]:
    """The completions of one batch; prompts are padded on the left."""
    width = max(len(row.request.prompt_ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        prompt = torch.tensor(list(row.request.prompt_ids))
        ids[number, width - len(prompt) :], mask[number, width - len(prompt) :] = prompt, 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    cache = DynamicCache(config=model.config)
    while rows:
        logits = _next_logits(model, ids, mask, cache)
        chosen = _choose(logits, rows, sampling)
        kept = []
        for number, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            stopped = token in stop_ids
            if not stopped:
                row.new_tokens.append(token)
            if stopped or len(row.new_tokens) == row.request.max_new_tokens:
                yield Completion(row.index, row.new_tokens, stopped)
            else:
                kept.append(number)
        if len(kept) < len(rows):
            rows = [rows[number] for number in kept]
            if not rows:
                return
            mask = mask[kept]
            cache.batch_select_indices(torch.tensor(kept, device=model.device))
        ids = torch.tensor([[chosen[number]] for number in kept], device=model.device)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)


@torch.no_grad()
def stream(model: PreTrainedModel, request: GenerationRequest, stop_ids: Set[int], sampling: Sampling) -> Iterator[int]:
    """The tokens of one completion as they are drawn; see `engines.interface.LanguageModel.stream`."""
    row = _Row(0, request, np.random.default_rng(request.seed))
    ids = torch.tensor([list(request.prompt_ids)], device=model.device)
    mask = torch.ones_like(ids)
    cache = DynamicCache(config=model.config)
    while len(row.new_tokens) < request.max_new_tokens:
        (token,) = _choose(_next_logits(model, ids, mask, cache), [row], sampling)
        if token in stop_ids:
            return
        row.new_tokens.append(token)
        yield token
        ids = torch.tensor([[token]], device=model.device)
        mask = torch.cat([mask, mask.new_ones(1, 1)], 1)


def _next_logits(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
    """The float32 logits (rows, vocabulary) after `ids`, whose positions count the unmasked ids alone."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    is_padded = bool((mask == 0).any())
    output = model(
        input_ids=ids,
        attention_mask=mask if is_padded else None,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1].float()


def _choose(logits: torch.Tensor, rows: list[_Row], sampling: Sampling) -> list[int]:
    """The next token of each row."""
    if sampling.temperature == 0 and sampling.repetition_penalty == 1:
        return [int(token) for token in logits.argmax(-1).tolist()]
    scores = logits.cpu().numpy()
    return [
        sample_token(one, [*row.request.prompt_ids, *row.new_tokens], sampling, row.random)
        for one, row in zip(scores, rows, strict=True)
    ]
