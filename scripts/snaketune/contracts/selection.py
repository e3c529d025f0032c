"""What the choice between experiments reads and writes."""

from __future__ import annotations

from typing import Literal

from snaketune.files import Record


class SelectionMetric(Record, frozen=True, kw_only=True):
    """What select.metric names: its key, its label in a sentence, and which direction is better."""

    name: str
    label: str
    better: Literal["higher", "lower"]
