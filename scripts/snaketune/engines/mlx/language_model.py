"""A language model of MLX: the part `engines.interface.AdaptedModel`.

Log-probabilities are those of whole rows and of next tokens; generation is batched with mlx-lm: prompts are sorted by
length, and a finished one is replaced as it ends.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache
from mlx_lm.sample_utils import apply_top_k, apply_top_p, make_logits_processors

from snaketune.engines.decoding import Sampling, shared_prefix
from snaketune.engines.interface import Completion, GenerationRequest, LoadOptions, LoglikelihoodRequest
from snaketune.engines.mlx import loading, prompt_embedding
from snaketune.engines.mlx.loading import dequantized_weight
from snaketune.engines.mlx.prompt_embedding import PromptEmbedding
from snaketune.engines.mlx.streamed_model import StreamedModel
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
        return supports_ragged_prefill(self.model)

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
        """The log-probability of each row's masked tokens, in nats."""
        return loglikelihoods(self.model, requests)

    def generate(
        self, requests: Sequence[GenerationRequest], *, stop_ids: Set[int], sampling: Sampling
    ) -> Iterator[Completion]:
        """Completions as they end; whether rows can be read together is measured only where there are several."""
        batched = len(requests) > 1 and self._batched
        return generate(self.model, requests, stop_ids, sampling, batched=batched)

    def stream(self, request: GenerationRequest, *, stop_ids: Set[int], sampling: Sampling) -> Iterator[int]:
        """The tokens of one completion as they are drawn."""
        return stream(self.model, request, stop_ids, sampling)

    def next_token_logprobs(
        self, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """For each row, ln p(next token) after each of its positions."""
        for ids, wanted in zip(rows, positions, strict=True):
            yield next_token_logprobs(self.model, ids, wanted)

    def adapter_norm_ratio(self) -> float | None:
        """The size of what was learned, relative to the weights that it changes or stands among."""
        return adapter_norm_ratio(self.model)

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[bool]:
        """Take the adapter's layers off for the duration of the block, where it has layers of its own.

        Without virtual tokens, a model after prompt tuning is its base as it stands.
        """
        adapted = {name: module for name, module in self.model.named_modules() if "lora_a" in module}
        plain = {name: module.get("linear", module.get("embedding")) for name, module in adapted.items()}
        self.model.update_modules(tree_unflatten(list(plain.items())))
        try:
            yield bool(adapted) or prompt_embedding.find(self.model) is not None
        finally:
            self.model.update_modules(tree_unflatten(list(adapted.items())))

    def close(self) -> None:
        """Drop the weights, which frees their memory."""
        del self.model


def adapter_norm_ratio(model: nn.Module) -> float | None:
    """Frobenius norm of all low-rank updates over that of the weights they are added to; see `AdaptedModel`.

    A useful adapter stays below 1. The norm of a product comes from the two r x r Gram matrices, so no update is
    ever materialized.
    """
    tuned = prompt_embedding.find(model)
    if tuned is not None:
        return _prompt_norm_ratio(tuned)
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


def _prompt_norm_ratio(tuned: PromptEmbedding) -> float:
    """Norm of the longest learned vector over the root mean square of the norms of the embedding's rows."""
    rows = dequantized_weight(tuned.embedding)
    parts = (rows[start : start + ROW_CHUNK].astype(mx.float32) for start in range(0, len(rows), ROW_CHUNK))
    typical = math.sqrt(sum(mx.square(part).sum().item() for part in parts) / len(rows))  # type: ignore[arg-type]
    longest = mx.linalg.norm(tuned.prompt.astype(mx.float32), axis=-1).max().item()
    return float(longest) / typical  # type: ignore[arg-type]


ROW_CHUNK = 8192  # rows of the embedding that are float32 at once
CHUNK = 512  # tokens whose logits are held at once: 512 x a vocabulary of 256,000 x 4 bytes is 0.5 GB
DISTRIBUTION_CHUNK = 256  # the same where whole distributions are kept


def loglikelihoods(model: nn.Module, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
    """The loglikelihood of each row, in nats; see `engines.interface.LanguageModel.loglikelihood`.

    Rows go through one by one, which on a CPU is faster than padded batches of them; a prefix that all rows share,
    without a masked token in it, is computed once.
    """
    shared = shared_prefix([_prefix_before_first_target(*request) for request in requests])
    cache = prefill(model, shared) if shared else None
    if cache is not None and not can_trim_prompt_cache(cache):
        shared, cache = [], None
    for ids, loss_mask in requests:
        yield _loglikelihood(model, np.asarray(ids, np.int32), np.asarray(loss_mask, bool), len(shared), cache)


def _prefix_before_first_target(ids: Sequence[int], loss_mask: Sequence[bool]) -> Sequence[int]:
    """A row up to its first masked token, which is where its first log-probability is taken."""
    return ids[: next((i for i, is_target in enumerate(loss_mask) if is_target), len(ids))]


def _loglikelihood(
    model: nn.Module, ids: np.ndarray, loss_mask: np.ndarray, num_shared: int, shared: list[Any] | None
) -> float:
    """One row, in chunks through a cache, so that the logits of a long row need not be held all at once.

    shared: the cache after the row's first `num_shared` tokens, given back as it was.
    """
    inputs, labels, is_target = ids[:-1], ids[1:], loss_mask[1:]
    if not is_target.any():
        return 0.0
    last = int(np.flatnonzero(is_target)[-1]) + 1
    cache = shared or (make_prompt_cache(model) if last > CHUNK else None)
    total = 0.0
    for start in range(num_shared, last, CHUNK):
        end = min(start + CHUNK, last)
        logits = model(mx.array(inputs[None, start:end]), cache=cache)[0]
        target_positions = np.flatnonzero(is_target[start:end])
        if len(target_positions) == 0:
            mx.eval(logits)
            continue
        chosen = logits[mx.array(target_positions)].astype(mx.float32)
        of_label = mx.take_along_axis(chosen, mx.array(labels[start:end][target_positions])[:, None], axis=-1)[:, 0]
        total += mx.sum(of_label - mx.logsumexp(chosen, axis=-1)).item()  # type: ignore[assignment]
    if shared is not None:
        trim_prompt_cache(shared, last - num_shared)
    return total


def next_token_logprobs(model: nn.Module, ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """ln p(next token | ids up to and including a position): float32 of shape (positions, vocabulary).

    positions: ascending, in ids.
    """
    cache = make_prompt_cache(model) if len(ids) > DISTRIBUTION_CHUNK else None
    parts: list[np.ndarray] = []
    for start in range(0, max(positions) + 1, DISTRIBUTION_CHUNK):
        end = min(start + DISTRIBUTION_CHUNK, max(positions) + 1)
        logits = model(mx.array([list(ids[start:end])]), cache=cache)[0]
        in_chunk = [position - start for position in positions if start <= position < end]
        if not in_chunk:
            mx.eval(logits)
            continue
        chosen = logits[mx.array(in_chunk)].astype(mx.float32)
        parts.append(np.array(chosen - mx.logsumexp(chosen, axis=-1, keepdims=True)))
    return np.concatenate(parts)


BATCH = 32  # completions generated at once
PREFILL = 16  # prompts read at once; 8 is a tenth slower on a CPU, more gains nothing
PREFILL_CHUNK = 512
RAGGED_PROBE = ([1, 2, 3, 4, 5, 6, 7], [3, 2, 1], [2])
"""Ids of three rows of different length: enough for a model whose mask does not reckon with a batch to fail."""
TOLERANCE = 1e-3  # nats, in float32
TOLERANCE_16_BIT = 0.25  # bfloat16 rounds differently in a batch and alone
EXACT_DTYPES = (mx.float32, mx.uint32)  # uint32 holds the packed numbers of quantized weights


def generate(
    model: nn.Module,
    requests: Sequence[GenerationRequest],
    stop_ids: Set[int],
    sampling: Sampling,
    *,
    batched: bool = True,
) -> Iterator[Completion]:
    """Completions as they end; see `engines.interface.LanguageModel.generate`.

    batched: several rows at once, for a model that `supports_ragged_prefill`.
    """
    prompts = [request.prompt_ids for request in requests]
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    shared = shared_prefix(prompts)
    cache = prefill(model, shared) if shared else None
    generator = BatchGenerator(
        model,
        stop_tokens=[[i] for i in sorted(stop_ids)],
        completion_batch_size=BATCH if batched else 1,
        prefill_batch_size=PREFILL if batched else 1,
    )
    try:
        uids = generator.insert(
            [list(prompts[i][len(shared) :]) for i in order],
            [requests[i].max_new_tokens for i in order],
            caches=[cache] * len(order) if cache is not None else None,
            all_tokens=[list(shared) for _ in order],
            samplers=None if sampling.temperature == 0 else [_sampler(sampling, requests[i].seed) for i in order],
            logits_processors=[_penalty(sampling)] * len(order),
        )
        index_of = dict(zip(uids, order, strict=True))
        new_tokens: dict[int, list[int]] = {uid: [] for uid in uids}
        while responses := generator.next_generated():
            for response in responses:
                if response.finish_reason != "stop":
                    new_tokens[response.uid].append(response.token)
                if response.finish_reason is not None:
                    stopped = response.finish_reason == "stop"
                    yield Completion(index_of[response.uid], new_tokens.pop(response.uid), stopped)
    finally:
        generator.close()


def stream(model: nn.Module, request: GenerationRequest, stop_ids: Set[int], sampling: Sampling) -> Iterator[int]:
    """The tokens of one completion as they are drawn; see `engines.interface.LanguageModel.stream`."""
    generator = BatchGenerator(
        model, stop_tokens=[[i] for i in sorted(stop_ids)], completion_batch_size=1, prefill_batch_size=1
    )
    try:
        generator.insert(
            [list(request.prompt_ids)],
            [request.max_new_tokens],
            all_tokens=[[]],
            samplers=None if sampling.temperature == 0 else [_sampler(sampling, request.seed)],
            logits_processors=[_penalty(sampling)],
        )
        while responses := generator.next_generated():
            for response in responses:
                if response.finish_reason != "stop":
                    yield response.token
    finally:
        generator.close()


def supports_ragged_prefill(model: nn.Module) -> bool:
    """Measure whether rows of different length, read together, are predicted as they are alone.

    mlx-lm's gemma2 raises for most batch sizes and is wrong for others, because its mask has no dimension for the
    repeated heads. The probe costs one short pass for each row and one for all of them.
    """
    try:
        together = _first_logprobs(model, RAGGED_PROBE)
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError):
        return False
    weights = dict(tree_flatten(model.parameters(), destination={}))
    exact = all(value.dtype in EXACT_DTYPES for value in weights.values())
    tolerance = TOLERANCE if exact else TOLERANCE_16_BIT
    return all(_gap(model, ids, found) <= tolerance for ids, found in zip(RAGGED_PROBE, together, strict=True))


def _gap(model: nn.Module, ids: list[int], logprobs: mx.array) -> float:
    """The largest difference between given log-probabilities and the model's own after `ids`; NaN fits nothing."""
    logits = model(mx.array([ids]))[0, -1].astype(mx.float32)
    return float(mx.abs(logits - mx.logsumexp(logits) - logprobs.astype(mx.float32)).max().item())  # type: ignore[arg-type]


def _first_logprobs(model: nn.Module, prompts: Sequence[list[int]]) -> list[mx.array]:
    """ln p of the first new token after each prompt, all prompts read in one batch."""
    generator = BatchGenerator(model, completion_batch_size=len(prompts), prefill_batch_size=len(prompts))
    try:
        uids = generator.insert(list(prompts), [1] * len(prompts))
        found: dict[int, mx.array] = {}
        while responses := generator.next_generated():
            found |= {response.uid: response.logprobs for response in responses}
        return [found[uid] for uid in uids]
    finally:
        generator.close()


def prefill(model: nn.Module, ids: Sequence[int]) -> list[Any] | None:
    """The model's cache after reading `ids`; None where its architecture cannot continue several rows from one."""
    cache = make_prompt_cache(model)
    if not all(hasattr(layer, "merge") for layer in cache):
        return None
    for start in range(0, len(ids), PREFILL_CHUNK):
        model(mx.array([ids[start : start + PREFILL_CHUNK]]), cache=cache)
        mx.eval([layer.state for layer in cache])
    return cache


def _penalty(sampling: Sampling) -> list[Any]:
    if sampling.repetition_penalty == 1:
        return []
    return make_logits_processors(
        repetition_penalty=sampling.repetition_penalty, repetition_context_size=sampling.repetition_context
    )


def _sampler(sampling: Sampling, seed: int) -> Callable[[mx.array], mx.array]:
    """Draws one row's tokens from log-probabilities [1, vocabulary], from its own seed alone."""
    key = mx.random.key(seed)

    def draw(logprobs: mx.array) -> mx.array:
        nonlocal key
        key, now = mx.random.split(key)
        if 0 < sampling.top_k < logprobs.shape[-1]:
            logprobs = apply_top_k(logprobs, sampling.top_k)
        if sampling.top_p < 1:
            logprobs = apply_top_p(logprobs, sampling.top_p)
        return mx.random.categorical(logprobs / sampling.temperature, key=now)

    return draw
