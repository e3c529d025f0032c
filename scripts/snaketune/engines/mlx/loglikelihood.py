"""Log-probabilities from an MLX model: of whole rows, and of every next token at chosen positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache

from snaketune.engines.context_window import shared_prefix
from snaketune.engines.interface import LoglikelihoodRequest
from snaketune.engines.mlx.generation import prefill

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
