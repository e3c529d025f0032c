"""What decoding shares in every engine: sampling of the next token, and how a prompt fits the context window."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snaketune.model.manifest import declared_context_length


@dataclass(frozen=True)
class Sampling:
    """Generation settings; a temperature of 0 always takes the likeliest token.

    In this order: the logits of the last `repetition_context` tokens, prompt included, are weakened by
    `repetition_penalty` (Keskar et al. 2019); all but the `top_k` likeliest tokens are left out (0: none); then all
    but the likeliest whose probabilities add up to `top_p`; one of the rest is drawn at `temperature`.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    repetition_context: int = 64


def row_seed(seed: int, name: str) -> int:
    """A seed for each row, so that its completion depends neither on the other rows nor on their order."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "little")


def sample_token(logits: np.ndarray, before: Sequence[int], sampling: Sampling, rng: np.random.Generator) -> int:
    """Choose the next token after `before`, from its logits [vocabulary]."""
    if sampling.repetition_penalty != 1:
        logits = apply_repetition_penalty(logits, before[-sampling.repetition_context :], sampling.repetition_penalty)
    if sampling.temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    likely = _probabilities(logits[order])
    if sampling.top_p < 1:
        kept = int((np.cumsum(likely) - likely < sampling.top_p).sum())
        order = order[:kept]
    return int(rng.choice(order, p=_probabilities(logits[order] / sampling.temperature)))


def apply_repetition_penalty(logits: np.ndarray, tokens: Sequence[int], penalty: float) -> np.ndarray:
    """Divide the logits of `tokens` by the penalty where positive, multiply them by it where negative."""
    ids = sorted(set(tokens))
    weakened = logits.copy()
    weakened[ids] = np.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
    return weakened


def _probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return shifted / shifted.sum()


DEFAULT_CONTEXT = 2048
MIN_SHARED_PREFIX = 16  # tokens; sharing a shorter prefix saves less than its bookkeeping costs


def context_length(folder: str | Path) -> int:
    """The number of tokens that a model can attend to, from its config.json."""
    return declared_context_length(Path(folder)) or DEFAULT_CONTEXT


def sliding_windows(
    ids: Sequence[int], loss_mask: Sequence[bool], context: int
) -> Iterator[tuple[list[int], list[bool]]]:
    """Cut a row into windows of at most `context` tokens; each masked token is in exactly one window's mask.

    A window after the first begins with the row's first token, as trained models expect, and overlaps the one before
    by half a context, so that every scored token has at least that much before it.
    """
    if len(ids) <= context:
        yield list(ids), list(loss_mask)
        return
    step = max(1, context // 2)
    scored = 0
    start = 0
    while scored < len(ids):
        end = min(len(ids), start + context - (1 if start else 0))
        head = [ids[0]] if start else []
        mask = [False] * len(head) + [bool(loss_mask[i]) and i >= scored for i in range(start, end)]
        yield head + list(ids[start:end]), mask
        scored = end
        start = max(1, end - step)


class TruncatedPrompt(NamedTuple):
    """A prompt that fits its context: how long its completion may be, and how many of its ids were cut off."""

    prompt_ids: list[int]
    max_new_tokens: int
    num_cut: int


def truncate_left(prompt_ids: Sequence[int], context: int, max_new_tokens: int) -> TruncatedPrompt:
    """Truncate a prompt on the left so that a completion fits.

    A completion gets up to `max_new_tokens`, but a prompt is cut for no more than a quarter of the context; the first
    token stays.
    """
    room = min(max_new_tokens, max(1, context // 4))
    excess = len(prompt_ids) - (context - room)
    kept = list(prompt_ids) if excess <= 0 else [prompt_ids[0], *prompt_ids[excess + 1 :]]
    return TruncatedPrompt(kept, min(max_new_tokens, context - len(kept)), max(0, excess))


def shared_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The longest common prefix, short of any prompt's last token; empty if shorter than MIN_SHARED_PREFIX."""
    if len(prompts) < 2:
        return []
    first, last = min(map(list, prompts)), max(map(list, prompts))  # what these two share, all share
    both = zip(first, last, strict=False)
    length = next((i for i, (one, other) in enumerate(both) if one != other), min(len(first), len(last)))
    length = min(length, min(len(prompt) for prompt in prompts) - 1)
    return first[:length] if length >= MIN_SHARED_PREFIX else []
