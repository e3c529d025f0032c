"""The learning rate of each update: warm-up, then constant, linear or cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """peak: the learning rate after warm-up; final_share: the last update's, as a share of it; warmup: updates."""

    peak: float
    updates: int
    shape: str = "cosine"
    warmup: int = 0
    final_share: float = 0.0

    def __call__(self, update: int) -> float:
        """The learning rate of update 1, 2, ..., `updates`."""
        if update <= self.warmup:
            return self.peak * update / self.warmup
        if self.shape == "constant":
            return self.peak
        done = (update - self.warmup) / max(1, self.updates - self.warmup)
        height = 1 - done if self.shape == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.peak * (self.final_share + (1 - self.final_share) * height)


def from_settings(train: dict[str, Any], updates: int) -> Schedule:
    """The schedule of a training of so many updates.

    A warm-up below 1 is a share of the updates. One that would not end before half of them is cut there, so that a
    short training (the pilot's, above all) reaches its learning rate.
    """
    warmup = train["warmup_steps"] * updates if train["warmup_steps"] < 1 else train["warmup_steps"]
    return Schedule(
        peak=train["learning_rate"],
        updates=updates,
        shape=train["lr_scheduler"],
        warmup=min(round(warmup), updates // 2),
        final_share=train["min_lr_ratio"],
    )
