"""Where a training is, in a few counters; with weights and optimizer state, all that a checkpoint holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from snaketune.train.batches import Visits
from snaketune.train.early_stopping import Best
from snaketune.train.metrics_log import short


@dataclass
class Progress:
    """Counts since the first update of the training, over all its resumptions.

    read_tokens are positions that are not padding; metrics_size is the length of metrics.jsonl in bytes.
    """

    best: Best
    update: int = 0
    rows_seen: int = 0
    trained_tokens: int = 0
    read_tokens: int = 0
    positions: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    base_loss: float | None = None
    metrics_size: int = 0

    def state(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Progress:
        return cls(**{**state, "best": Best(**state["best"])})

    def summary(self, visits: Visits, stopped: str, **more: Any) -> dict[str, Any]:
        """What summary.json says; nothing in it depends on the clock or on interruptions."""
        times = visits.times(self.update)
        return {
            "updates": self.update,
            "planned_updates": visits.updates,
            "epochs": short(visits.epoch(self.update)),
            "rows": len(times),
            "rows_seen": self.rows_seen,
            "times_each_row_was_seen": {
                "least": int(times.min()),
                "most": int(times.max()),
                "mean": short(float(times.mean())),
            },
            "trained_tokens": self.trained_tokens,
            "positions_per_token": short(self.positions / max(1, self.read_tokens), 5),
            "base_validation_loss": short(self.base_loss if self.base_loss is not None else float("nan")),
            "best_validation_loss": short(self.best.loss),
            "best_update": self.best.update,
            "skipped_updates": self.skipped,
            "stopped": stopped,
            **more,
        }
