"""Copies the pilot's forecast for a training into its timing.json.

Into timing.json, not summary.json: a forecast of time is of its machine and moment, and a summary is the same bytes for
the same training.
"""

from __future__ import annotations

from pathlib import Path

from snaketune.contracts.pilot import PilotDecision
from snaketune.files import read_json, write_json


def add(timing: Path, decision: Path, experiment: str) -> None:
    """Add `forecast`, with timing.json's own keys, to the timing of the experiment that the pilot tried; no other's."""
    made = read_json(decision, type=PilotDecision)
    if made.piloted.experiment == experiment:
        forecast = made.forecast
        found = {"seconds": forecast.seconds["train"], "peak_memory_bytes": forecast.memory_bytes}
        write_json(timing, read_json(timing) | {"forecast": found})
