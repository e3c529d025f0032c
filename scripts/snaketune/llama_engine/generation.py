"""Answers from a GGUF, prompt after prompt; what a prompt shares with the one before is not computed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import numpy as np
from llama_cpp import Llama

from snaketune.llama_engine.sequence import TokenSequence

LAST = np.array([True])


def answers(
    llama: Llama, prompts: Sequence[Sequence[int]], limits: Sequence[int], stop_ids: Set[int]
) -> Iterator[tuple[int, list[int], bool]]:
    """Greedy answers as they end: (which prompt, the new ids without the stop token, whether it stopped by itself).

    limits: for each prompt the most new tokens, at least 1. Prompts are taken in the order of their ids, so that
    those with the same beginning follow each other.
    """
    sequence = TokenSequence(llama)
    try:
        for number in sorted(range(len(prompts)), key=lambda i: (list(prompts[i]), i)):
            new, stopped = _answer(sequence, prompts[number], limits[number], stop_ids)
            yield number, new, stopped
    finally:
        sequence.close()


def _answer(sequence: TokenSequence, prompt: Sequence[int], limit: int, stop_ids: Set[int]) -> tuple[list[int], bool]:
    start = sequence.keep(prompt, at_most=len(prompt) - 1)
    while start < len(prompt):
        end = min(start + sequence.chunk, len(prompt))
        wanted = np.arange(start, end) == len(prompt) - 1
        logits = sequence.read(prompt[start:end], wanted)
        start = end
    new: list[int] = []
    while True:
        token = int(logits[-1].argmax())
        if token in stop_ids:
            return new, True
        new.append(token)
        if len(new) >= limit:
            return new, False
        logits = sequence.read([token], LAST)
