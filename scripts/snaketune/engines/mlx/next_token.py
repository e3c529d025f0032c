"""Next-token distributions of an MLX model over the whole vocabulary, at chosen positions of a row."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

CHUNK = 256  # tokens whose logits are held at once: 256 x a vocabulary of 256,000 x 4 bytes is 0.26 GB


def next_token_logprobs(model: nn.Module, ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """ln p(next token | ids up to and including a position): float32 of shape (positions, vocabulary).

    positions: ascending, in ids.
    """
    cache = make_prompt_cache(model) if len(ids) > CHUNK else None
    parts: list[np.ndarray] = []
    for start in range(0, max(positions) + 1, CHUNK):
        end = min(start + CHUNK, max(positions) + 1)
        logits = model(mx.array([list(ids[start:end])]), cache=cache)[0]
        in_chunk = [position - start for position in positions if start <= position < end]
        if not in_chunk:
            mx.eval(logits)
            continue
        chosen = logits[mx.array(in_chunk)].astype(mx.float32)
        parts.append(np.array(chosen - mx.logsumexp(chosen, axis=-1, keepdims=True)))
    return np.concatenate(parts)
