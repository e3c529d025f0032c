"""A GGUF's whole distribution over the vocabulary at chosen places of a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snaketune.engines.llama_cpp.context import TokenSequence


def distributions(sequence: TokenSequence, ids: Sequence[int], places: Sequence[int]) -> np.ndarray:
    """ln p(next token | ids up to and including a place): float32 of shape (places, vocabulary).

    places: ascending positions in ids. What the row shares with the one read before is not computed again.
    """
    end = max(places) + 1
    wanted = np.zeros(end, bool)
    wanted[list(places)] = True
    start = sequence.keep(ids[:end], at_most=min(places))
    parts: list[np.ndarray] = []
    while start < end:
        until = min(start + sequence.chunk, end)
        parts.append(_log_softmax(sequence.read(ids[start:until], wanted[start:until])))
        start = until
    return np.concatenate(parts)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)
