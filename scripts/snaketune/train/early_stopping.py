"""Which update was best, and when to stop looking for a better one."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Best:
    """The best validation so far. `without_gain` counts validations in a row that gained less than `minimum_gain`."""

    patience: int | None
    minimum_gain: float = 0.0
    loss: float = math.inf
    update: int = 0
    without_gain: int = 0
    reference: float = math.inf

    def offer(self, update: int, loss: float) -> bool:
        """Take note of a validation; returns whether it is the best so far."""
        if loss < self.reference - self.minimum_gain:
            self.reference, self.without_gain = loss, 0
        elif update:
            self.without_gain += 1
        if loss < self.loss:
            self.loss, self.update = loss, update
            return True
        return False

    @property
    def exhausted(self) -> bool:
        return self.patience is not None and self.without_gain >= self.patience
