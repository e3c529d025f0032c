"""The forecast of time, on trainings whose true speed is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from snaketune.contracts.plan import DryRunTiming
from snaketune.contracts.train import StepTiming, TrainingTiming
from snaketune.plan import duration
from snaketune.plan.duration import Types


def training(updates: int, per_token: float, validation: float, every: int, noise: float, seed: int):
    """timing.json, timing.jsonl and tokens of a training of this speed, its last update validated too."""
    source = np.random.default_rng(seed)
    tokens = source.integers(50, 200, updates)
    clock, lines = validation, []
    for update in range(1, updates + 1):
        clock += tokens[update - 1] * per_token * source.uniform(1 - noise, 1 + noise)
        lines.append(StepTiming(step=update, seconds=clock, cpu_seconds=clock, peak_memory_bytes=1))
        if update % every == 0 or update == updates:
            clock += validation
    return whole_timing(clock), lines, tokens.tolist()


def whole_timing(seconds: float, resumed_from: int = 0) -> TrainingTiming:
    return TrainingTiming(
        seconds=seconds,
        cpu_seconds=seconds,
        tokens_per_second=1.0,
        peak_memory_bytes=1,
        peak_resident_bytes=1,
        resumed_from=resumed_from,
    )


@given(per_token=st.floats(1e-5, 1e-1), validation=st.floats(0, 50), noise=st.floats(0, 0.3), seed=st.integers(0, 999))
def test_the_full_run_is_forecast_within_a_fifth_and_within_its_range(per_token, validation, noise, seed):
    speed = duration.measured(*training(60, per_token, validation, 100, noise, seed))
    timing, _, tokens = training(600, per_token, validation, 50, noise, seed + 1)
    forecast = duration.training_seconds(speed, sum(tokens), 1 + 600 // 50)
    assert forecast == pytest.approx(timing.seconds, rel=0.2)
    assert abs(forecast - timing.seconds) <= speed.relative_error * forecast + 1e-6


def test_a_resumed_pilot_gives_the_speed_of_its_updates():
    _, lines, tokens = training(40, 0.01, 0.5, 100, 0.05, 1)
    resumed = [replace(line, seconds=line.seconds - (lines[19].seconds if line.step > 20 else 0)) for line in lines]
    speed = duration.measured(whole_timing(0.1, resumed_from=40), resumed, tokens)
    assert speed.per_token == pytest.approx(0.01, rel=0.1)


def test_a_pilot_of_two_updates_tells_nothing_sure():
    timing, lines, tokens = training(2, 0.01, 0.5, 100, 0.05, 1)
    assert duration.measured(timing, lines, tokens).relative_error == 1


@given(updates=st.integers(3, 5), validation=st.floats(0, 50), seed=st.integers(0, 99))
def test_a_pilot_of_a_few_updates_keeps_its_validations_apart_though_two_lines_come_at_once(updates, validation, seed):
    timing, lines, tokens = training(updates, 0.01, validation, 100, 0.05, seed)
    lines[-2] = replace(lines[-2], seconds=lines[-1].seconds)
    speed = duration.measured(timing, lines, tokens)
    full = sum(tokens) * 100 * 0.01 + 5 * validation
    assert duration.training_seconds(speed, sum(tokens) * 100, 5) == pytest.approx(full, rel=0.25)


def test_packaging_grows_with_the_model_the_files_asked_for_and_what_the_converter_takes():
    tried = DryRunTiming(
        converter_seconds=9,
        merged_per_second=1e8,
        quantized_per_second={"q8_0": 2e8, "q4_k_m": 2e7},
        calibrated_per_second={"q4_k_m": 1e7},
        gguf={},
    )

    def packaging(parameters: int, kinds: list[str], threads: int = 1) -> float:
        return duration.packaging_seconds(parameters, Types.of(kinds, False), 2, tried, threads)

    size = 8 * 10**9
    few, more = packaging(size, ["q8_0"]), packaging(size, ["q8_0", "q4_k_m"])
    assert more > few > 3 * packaging(10**8, ["q8_0"])
    assert packaging(10**6, ["f16"]) == pytest.approx(2 + duration.START_SECONDS + 9, abs=0.1)
    assert packaging(size, ["q4_k_m"]) - packaging(size, ["q4_k_m"], threads=2) == pytest.approx(size / 2e7 / 2)
    calibrated = duration.packaging_seconds(size, Types([], ["q4_k_m"]), 2, tried, 1)
    assert calibrated - packaging(size, ["q4_k_m"]) == pytest.approx(size / 1e7 - size / 2e7)
