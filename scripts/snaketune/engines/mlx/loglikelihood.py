"""How probable a model finds given answers: the sum of natural-log probabilities of a row's target tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache

from snaketune.engines.context_window import shared_prefix
from snaketune.engines.mlx.generation import read

CHUNK = 512  # tokens whose logits are held at once: 512 x a vocabulary of 256,000 x 4 bytes is 0.5 GB


def log_probabilities(model: nn.Module, rows: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> Iterator[float]:
    """The log-probability of each row's targets, given everything before them, in the order of the rows.

    rows: ids and the mask of targets, both of the row's length; the first id is never a target. Rows go through one
    by one, which on a CPU is faster than padded batches of them; a beginning that all share, free of targets, is
    computed once.
    """
    shared = shared_prefix([_untargeted(ids, targets) for ids, targets in rows])
    cache = read(model, shared) if shared else None
    if cache is not None and not can_trim_prompt_cache(cache):
        shared, cache = [], None
    for ids, targets in rows:
        yield _row(model, np.asarray(ids, np.int32), np.asarray(targets, bool), len(shared), cache)


def _untargeted(ids: Sequence[int], targets: Sequence[bool]) -> Sequence[int]:
    """A row up to the first target, which is where its first log-probability is taken."""
    return ids[: next((i for i, one in enumerate(targets) if one), len(ids))]


def _row(model: nn.Module, ids: np.ndarray, targets: np.ndarray, done: int, shared: list[Any] | None) -> float:
    """In chunks through a cache, so that the logits of a long row need not be held all at once.

    shared: the cache after the row's first `done` tokens, given back as it was.
    """
    inputs, outputs, wanted = ids[:-1], ids[1:], targets[1:]
    if not wanted.any():
        return 0.0
    last = int(np.flatnonzero(wanted)[-1]) + 1
    cache = shared or (make_prompt_cache(model) if last > CHUNK else None)
    total = 0.0
    for start in range(done, last, CHUNK):
        end = min(start + CHUNK, last)
        logits = model(mx.array(inputs[None, start:end]), cache=cache)[0]
        places = np.flatnonzero(wanted[start:end])
        if len(places) == 0:
            mx.eval(logits)
            continue
        chosen = logits[mx.array(places)].astype(mx.float32)
        said = mx.take_along_axis(chosen, mx.array(outputs[start:end][places])[:, None], axis=-1)[:, 0]
        total += mx.sum(said - mx.logsumexp(chosen, axis=-1)).item()  # type: ignore[assignment]
    if shared is not None:
        trim_prompt_cache(shared, last - done)
    return total
