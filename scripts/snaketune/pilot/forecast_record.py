"""Copies the pilot's forecast for a training into its timing.json.

Into timing.json, not summary.json: a forecast of time is of its machine and moment, and a summary is the same bytes for
the same training.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from snaketune.contracts.plan import PilotDecision
from snaketune.contracts.train import TimingForecast, TrainingTiming
from snaketune.files import read_json, write_json


def record_forecast(timing: Path, decision: Path, experiment: str) -> None:
    """Add `forecast`, with timing.json's own keys, to the timing of the experiment that the pilot tried; no other's."""
    made = read_json(decision, type=PilotDecision)
    if made.piloted.experiment == experiment:
        forecast = made.forecast
        found = TimingForecast(seconds=forecast.seconds["train"], peak_memory_bytes=forecast.memory_bytes)
        write_json(timing, msgspec.structs.replace(read_json(timing, type=TrainingTiming), forecast=found))
