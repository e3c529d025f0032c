"""Answers from an MLX model, many at a time: prompts sorted by length, finished ones replaced as they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import apply_top_k, apply_top_p, make_logits_processors

from snaketune.engines.context_window import shared_prefix
from snaketune.engines.sampling import Sampling

BATCH = 32  # answers in the making at once
PREFILL = 16  # prompts read at once; 8 is a tenth slower on a CPU, more gains nothing


def answers(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stop_ids: Set[int],
    sampling: Sampling,
    seeds: Sequence[int],
) -> Iterator[tuple[int, list[int], bool]]:
    """Answers as they end: (which prompt, the new ids without the stop token, whether it stopped by itself).

    limits: for each prompt the most new tokens, at least 1; seeds: for each prompt the seed of its draws.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    shared = shared_prefix(prompts)
    cache = read(model, shared) if shared else None
    generator = BatchGenerator(
        model,
        stop_tokens=[[i] for i in sorted(stop_ids)],
        completion_batch_size=BATCH if _takes_rows(model) else 1,
        prefill_batch_size=PREFILL if _takes_rows(model) else 1,
    )
    try:
        uids = generator.insert(
            [list(prompts[i][len(shared) :]) for i in order],
            [limits[i] for i in order],
            caches=[cache] * len(order) if cache is not None else None,
            all_tokens=[list(shared) for _ in order],
            samplers=None if sampling.temperature == 0 else [_sampler(sampling, seeds[i]) for i in order],
            logits_processors=[_penalty(sampling)] * len(order),
        )
        number = dict(zip(uids, order, strict=True))
        said: dict[int, list[int]] = {uid: [] for uid in uids}
        while responses := generator.next_generated():
            for response in responses:
                if response.finish_reason != "stop":
                    said[response.uid].append(response.token)
                if response.finish_reason is not None:
                    yield number[response.uid], said.pop(response.uid), response.finish_reason == "stop"
    finally:
        generator.close()


def _takes_rows(model: nn.Module) -> bool:
    """Whether several rows of different length can be read at once: mlx-lm's gemma2 fails on their mask."""
    return not type(model).__module__.endswith(".gemma2")


def read(model: nn.Module, ids: Sequence[int]) -> list[Any] | None:
    """The model's cache after reading `ids`; None where its architecture cannot continue several rows from one."""
    cache = make_prompt_cache(model)
    if not all(hasattr(layer, "merge") for layer in cache):
        return None
    for start in range(0, len(ids), 512):
        model(mx.array([ids[start : start + 512]]), cache=cache)
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
