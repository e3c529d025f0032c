"""Sampling of the next token, the same in every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
