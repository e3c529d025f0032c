"""The forecast of time, on trainings whose true speed is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.plan import time


def training(updates: int, per_token: float, validation: float, every: int, noise: float, seed: int):
    """timing.json, timing.jsonl and tokens of a training of this speed, its last update validated too."""
    source = np.random.default_rng(seed)
    tokens = source.integers(50, 200, updates)
    clock, lines = validation, []
    for update in range(1, updates + 1):
        clock += tokens[update - 1] * per_token * source.uniform(1 - noise, 1 + noise)
        lines.append({"update": update, "seconds": clock})
        if update % every == 0 or update == updates:
            clock += validation
    return {"seconds": clock, "resumed_from": 0}, lines, tokens.tolist()


@given(per_token=st.floats(1e-5, 1e-1), validation=st.floats(0, 50), noise=st.floats(0, 0.3), seed=st.integers(0, 999))
def test_the_full_run_is_forecast_within_a_fifth_and_within_its_range(per_token, validation, noise, seed):
    speed = time.measured(*training(60, per_token, validation, 100, noise, seed))
    timing, _, tokens = training(600, per_token, validation, 50, noise, seed + 1)
    forecast = time.training_seconds(speed, sum(tokens), 600, 50) - time.START_SECONDS
    assert forecast == pytest.approx(timing["seconds"], rel=0.2)
    assert abs(forecast - timing["seconds"]) <= speed.share * forecast + 1e-6


def test_a_resumed_pilot_gives_the_speed_of_its_updates():
    _, lines, tokens = training(40, 0.01, 0.5, 100, 0.05, 1)
    resumed = [
        {**line, "seconds": line["seconds"] - (lines[19]["seconds"] if line["update"] > 20 else 0)} for line in lines
    ]
    speed = time.measured({"seconds": 0.1, "resumed_from": 40}, resumed, tokens)
    assert speed.per_token == pytest.approx(0.01, rel=0.1)


def test_a_pilot_of_two_updates_tells_nothing_sure():
    timing, lines, tokens = training(2, 0.01, 0.5, 100, 0.05, 1)
    assert time.measured(timing, lines, tokens).share == 1


def test_packaging_grows_with_the_model_and_the_files_asked_for():
    assert time.packaging_seconds(8 * 10**9, ["q8_0", "q4_k_m"]) > time.packaging_seconds(8 * 10**9, ["q8_0"])
    assert time.packaging_seconds(8 * 10**9, ["q8_0"]) > 5 * time.packaging_seconds(10**8, ["q8_0"])
