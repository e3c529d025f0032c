"""Answers from a GGUF, prompt after prompt; what a prompt shares with the one before is not computed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import numpy as np
from llama_cpp import Llama

from snaketune.evaluate.sampling import Sampling, pick
from snaketune.llama_engine.sequence import TokenSequence

LAST = np.array([True])


def answers(
    llama: Llama,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stop_ids: Set[int],
    sampling: Sampling,
    seeds: Sequence[int],
) -> Iterator[tuple[int, list[int], bool]]:
    """Answers as they end: (which prompt, the new ids without the stop token, whether it stopped by itself).

    limits: for each prompt the most new tokens, at least 1; seeds: for each prompt the seed of its draws. Prompts
    are taken in the order of their ids, so that those with the same beginning follow each other.
    """
    sequence = TokenSequence(llama)
    try:
        for number in sorted(range(len(prompts)), key=lambda i: (list(prompts[i]), i)):
            rng = np.random.default_rng(seeds[number])
            new, stopped = _answer(sequence, list(prompts[number]), limits[number], stop_ids, sampling, rng)
            yield number, new, stopped
    finally:
        sequence.close()


def _answer(
    sequence: TokenSequence,
    prompt: list[int],
    limit: int,
    stop_ids: Set[int],
    sampling: Sampling,
    rng: np.random.Generator,
) -> tuple[list[int], bool]:
    start = sequence.keep(prompt, at_most=len(prompt) - 1)
    while start < len(prompt):
        end = min(start + sequence.chunk, len(prompt))
        logits = sequence.read(prompt[start:end], np.arange(start, end) == len(prompt) - 1)
        start = end
    said = list(prompt)
    while True:
        token = pick(logits[-1], said, sampling, rng)
        if token in stop_ids:
            return said[len(prompt) :], True
        said.append(token)
        if len(said) - len(prompt) >= limit:
            return said[len(prompt) :], False
        logits = sequence.read([token], LAST)
