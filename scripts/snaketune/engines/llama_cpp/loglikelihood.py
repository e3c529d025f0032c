"""How probable a GGUF finds given answers; token ids go in, so no second tokenizer is involved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from llama_cpp import Llama

from snaketune.engines.llama_cpp.context import TokenSequence

SLICE = 64  # rows of logits that are exponentiated at once


def log_probabilities(llama: Llama, rows: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> Iterator[float]:
    """The log-probability of each row's targets, given everything before them, in the order of the rows.

    rows: ids and the mask of targets, both of the row's length and within the context; the first id is never one.
    """
    sequence = TokenSequence(llama)
    try:
        for ids, targets in rows:
            yield _row(sequence, np.asarray(ids, np.int32), np.asarray(targets, bool))
    finally:
        sequence.close()


def _row(sequence: TokenSequence, ids: np.ndarray, targets: np.ndarray) -> float:
    inputs, outputs, wanted = ids[:-1], ids[1:], targets[1:]
    if not wanted.any():
        return 0.0
    places = np.flatnonzero(wanted)
    last = int(places[-1]) + 1
    start = sequence.keep(inputs.tolist(), at_most=int(places[0]))
    total = 0.0
    while start < last:
        end = min(start + sequence.chunk, last)
        logits = sequence.read(inputs[start:end], wanted[start:end])
        said = outputs[start:end][wanted[start:end]]
        for first in range(0, len(said), SLICE):
            total += _sum_of_log_softmax(logits[first : first + SLICE], said[first : first + SLICE])
        start = end
    return total


def _sum_of_log_softmax(logits: np.ndarray, ids: np.ndarray) -> float:
    """Sum over rows of log softmax(logits)[id]; logits [rows, vocabulary]."""
    highest = logits.max(axis=-1, keepdims=True)
    normaliser = np.log(np.exp(logits - highest).sum(axis=-1, dtype=np.float64)) + highest[:, 0]
    return float((logits[np.arange(len(ids)), ids] - normaliser).sum())
