"""Answers from an MLX model, many at a time: prompts sorted by length, finished ones replaced as they end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import mlx.nn as nn
from mlx_lm.generate import BatchGenerator

BATCH = 32  # answers in the making at once
PREFILL = 8  # prompts read at once


def answers(
    model: nn.Module, prompts: Sequence[Sequence[int]], limits: Sequence[int], stop_ids: Set[int]
) -> Iterator[tuple[int, list[int], bool]]:
    """Greedy answers as they end: (which prompt, the new ids without the stop token, whether it stopped by itself).

    limits: for each prompt the most new tokens, at least 1.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    generator = BatchGenerator(
        model, stop_tokens=[[i] for i in sorted(stop_ids)], completion_batch_size=BATCH, prefill_batch_size=PREFILL
    )
    try:
        uids = generator.insert([list(prompts[i]) for i in order], [limits[i] for i in order])
        number = dict(zip(uids, order, strict=True))
        said: dict[int, list[int]] = {uid: [] for uid in uids}
        while responses := generator.next_generated():
            for response in responses:
                if response.finish_reason != "stop":
                    said[response.uid].append(response.token)
                if response.finish_reason is not None:
                    yield number[response.uid], said.pop(response.uid), response.finish_reason == "stop"
    finally:
        generator.close()
