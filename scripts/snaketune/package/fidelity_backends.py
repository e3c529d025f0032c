"""The forms that a model takes on its way, each asked the same: in MLX, in llama.cpp, and too large for memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from snaketune.engines.sampling import Sampling
from snaketune.files import StrPath
from snaketune.package.fidelity_probes import Reading, Sample, considered, in_order, read

GREEDY = Sampling()


@dataclass(frozen=True)
class Asking:
    """What every form is asked, how long its answers may be, and whether a float32 copy of it fits into memory."""

    sample: Sample
    stop_ids: frozenset[int]
    limit: int
    fits: bool = True


def in_mlx(
    folder: StrPath,
    asking: Asking,
    *,
    adapter: StrPath | None = None,
    rounded: str | None = None,
    answering: bool = True,
    reference: bool = False,
) -> Reading:
    """What a model of mlx-lm says in float32.

    rounded: a 16-bit format that its merged weights are rounded to; answering: whether its own answers are asked for;
    reference: whether what it considered while answering is kept, for others to be compared with.
    """
    from snaketune.engines.mlx import generation, loading, next_token, reference_merge, streaming

    def prepare(model: Any) -> None:
        if rounded:
            reference_merge.merge(model, rounded)

    if not asking.fits:
        asked = asking.sample
        found = iter(
            streaming.distributions(
                folder,
                asked.rows,
                [asked.places(row) for row in range(len(asked.rows))],
                adapter=adapter,
                prepare=prepare,
            )
        )
        return read(lambda _ids, _places: next(found), lambda _: [], asked)
    model = loading.load(folder, dtype="float32", adapter=adapter).model
    prepare(model)

    def distributions(ids: Sequence[int], places: Sequence[int]) -> np.ndarray:
        return next_token.distributions(model, ids, places)

    answers = _answers(lambda *settings: generation.answers(model, *settings), asking) if answering else lambda _: []
    reading = read(distributions, answers, asking.sample)
    if reference:
        pairs = zip(asking.sample.prompts, reading.answers, strict=True)
        reading.considered = [considered(distributions, prompt, answer) for prompt, answer in pairs]
    return reading


def in_llama(llama: Any, asking: Asking) -> Reading:
    """What a loaded GGUF says."""
    from snaketune.engines.llama_cpp import generation, next_token
    from snaketune.engines.llama_cpp.context import TokenSequence

    sequence = TokenSequence(llama)
    try:
        return read(
            lambda ids, places: next_token.distributions(sequence, ids, places),
            _answers(lambda *settings: generation.answers(llama, *settings), asking),
            asking.sample,
        )
    finally:
        sequence.close()


def _answers(generate: Callable[..., Any], asking: Asking) -> Callable[[Sequence[Sequence[int]]], list[list[int]]]:
    def answers(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        count = len(prompts)
        if not count:
            return []
        return in_order(generate(prompts, [asking.limit] * count, asking.stop_ids, GREEDY, [0] * count))

    return answers
