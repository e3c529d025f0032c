"""An MLX model's whole distribution over the vocabulary at chosen places of a row."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

CHUNK = 256  # tokens whose logits are held at once: 256 x a vocabulary of 256,000 x 4 bytes is 0.26 GB


def distributions(model: nn.Module, ids: Sequence[int], places: Sequence[int]) -> np.ndarray:
    """ln p(next token | ids up to and including a place): float32 of shape (places, vocabulary).

    places: ascending positions in ids.
    """
    cache = make_prompt_cache(model) if len(ids) > CHUNK else None
    parts: list[np.ndarray] = []
    for start in range(0, max(places) + 1, CHUNK):
        end = min(start + CHUNK, max(places) + 1)
        logits = model(mx.array([list(ids[start:end])]), cache=cache)[0]
        here = [place - start for place in places if start <= place < end]
        if not here:
            mx.eval(logits)
            continue
        chosen = logits[mx.array(here)].astype(mx.float32)
        parts.append(np.array(chosen - mx.logsumexp(chosen, axis=-1, keepdims=True)))
    return np.concatenate(parts)
