"""The learning rate of each step: warm-up, then constant, linear or cosine decay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from snaketune.config.sections import TrainConfig


@dataclass(frozen=True)
class LRSchedule:
    """Learning rate by step.

    peak_lr: after warm-up; kind: `cosine`, `linear` or `constant`; min_lr_ratio: the last step's rate / peak_lr.
    """

    peak_lr: float
    num_steps: int
    kind: str = "cosine"
    warmup_steps: int = 0
    min_lr_ratio: float = 0.0

    def __call__(self, step: int) -> float:
        """The learning rate of step 1, 2, ..., num_steps."""
        if step <= self.warmup_steps:
            return self.peak_lr * step / self.warmup_steps
        if self.kind == "constant":
            return self.peak_lr
        done = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        decay = 1 - done if self.kind == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.peak_lr * (self.min_lr_ratio + (1 - self.min_lr_ratio) * decay)


def schedule_from(config: TrainConfig, num_steps: int) -> LRSchedule:
    """The schedule of a training of so many steps.

    warmup_steps below 1 is a share of the steps. A warm-up that would not end before half of them is cut there, so that
    a short training (the pilot's, above all) reaches its learning rate.
    """
    warmup = config.warmup_steps * num_steps if config.warmup_steps < 1 else config.warmup_steps
    return LRSchedule(
        peak_lr=config.learning_rate,
        num_steps=num_steps,
        kind=config.lr_scheduler,
        warmup_steps=min(round(warmup), num_steps // 2),
        min_lr_ratio=config.min_lr_ratio,
    )
