"""How far two models are apart on the same tokens, and how often they choose the same word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Distance:
    """Gathers, position by position, how far one model's distributions are from a reference's."""

    largest: float = 0.0
    total: float = 0.0
    count: int = 0
    divergence: float = 0.0
    positions: int = 0
    agreeing: int = 0
    not_finite: int = 0

    def add(self, reference: np.ndarray, other: np.ndarray) -> None:
        """Two float32 arrays of log-probabilities, (positions, vocabulary); the vocabularies may be padded apart."""
        width = min(reference.shape[1], other.shape[1])
        ours, theirs = reference[:, :width], other[:, :width]
        self.not_finite += int((~np.isfinite(theirs)).any(-1).sum())
        gap = np.abs(ours - theirs)
        self.largest = max(self.largest, float(np.nanmax(gap, initial=0.0)))
        self.total += float(np.nansum(gap, dtype=np.float64))
        self.count += gap.size
        self.divergence += float(np.nansum(np.exp(ours, dtype=np.float64) * (ours - theirs)))
        self.positions += len(ours)
        self.agreeing += int((ours.argmax(-1) == theirs.argmax(-1)).sum())

    def record(self) -> dict[str, Any]:
        """{"max_dlogp", "mean_dlogp", "kl" (nats a position), "top1" (share), "positions"}."""
        return {
            "max_dlogp": round(self.largest, 6),
            "mean_dlogp": round(self.total / max(self.count, 1), 8),
            "kl": round(max(self.divergence, 0.0) / max(self.positions, 1), 10),
            "top1": round(self.agreeing / max(self.positions, 1), 6),
            "positions": self.positions,
            "not_finite": self.not_finite,
        }
