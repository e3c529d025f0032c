"""Next-token distributions of a GGUF over the whole vocabulary, at chosen positions of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from llama_cpp import Llama

from snaketune.engines.llama_cpp.context import TokenSequence


def next_token_logprobs(
    llama: Llama, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> Iterator[np.ndarray]:
    """For each row ln p(next token | ids up to and including a position): float32 of shape (positions, vocabulary).

    positions: for each row ascending. What a row shares with the one before it is not computed again.
    """
    sequence = TokenSequence(llama)
    try:
        for ids, wanted in zip(rows, positions, strict=True):
            yield _row(sequence, ids, wanted)
    finally:
        sequence.close()


def _row(sequence: TokenSequence, ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    end = max(positions) + 1
    is_wanted = np.zeros(end, bool)
    is_wanted[list(positions)] = True
    start = sequence.keep(ids[:end], at_most=min(positions))
    parts: list[np.ndarray] = []
    while start < end:
        until = min(start + sequence.chunk, end)
        parts.append(_log_softmax(sequence.read(ids[start:until], is_wanted[start:until])))
        start = until
    return np.concatenate(parts)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)
