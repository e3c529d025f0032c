"""The loglikelihood of rows under a GGUF; token ids go in, so no second tokenizer is involved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from llama_cpp import Llama

from snaketune.engines.interface import LoglikelihoodRequest
from snaketune.engines.llama_cpp.context import TokenSequence

SLICE = 64  # rows of logits that are exponentiated at once


def loglikelihoods(llama: Llama, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
    """The loglikelihood of each row, in nats; see `engines.interface.LanguageModel.loglikelihood`."""
    sequence = TokenSequence(llama)
    try:
        for ids, loss_mask in requests:
            yield _loglikelihood(sequence, np.asarray(ids, np.int32), np.asarray(loss_mask, bool))
    finally:
        sequence.close()


def _loglikelihood(sequence: TokenSequence, ids: np.ndarray, loss_mask: np.ndarray) -> float:
    inputs, labels, is_target = ids[:-1], ids[1:], loss_mask[1:]
    if not is_target.any():
        return 0.0
    target_positions = np.flatnonzero(is_target)
    last = int(target_positions[-1]) + 1
    start = sequence.keep(inputs.tolist(), at_most=int(target_positions[0]))
    total = 0.0
    while start < last:
        end = min(start + sequence.chunk, last)
        logits = sequence.read(inputs[start:end], is_target[start:end])
        chosen = labels[start:end][is_target[start:end]]
        for first in range(0, len(chosen), SLICE):
            total += _sum_of_log_softmax(logits[first : first + SLICE], chosen[first : first + SLICE])
        start = end
    return total


def _sum_of_log_softmax(logits: np.ndarray, ids: np.ndarray) -> float:
    """Sum over rows of log softmax(logits)[id]; logits [rows, vocabulary]."""
    highest = logits.max(axis=-1, keepdims=True)
    normalizer = np.log(np.exp(logits - highest).sum(axis=-1, dtype=np.float64)) + highest[:, 0]
    return float((logits[np.arange(len(ids)), ids] - normalizer).sum())
