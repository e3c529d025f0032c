"""The forecast of the full run: all its experiments, its packaging, its answers."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from snaketune import files
from snaketune.config.sections import FidelityConfig, ModelConfig, PilotConfig, section
from snaketune.contracts.plan import (
    BatchShape,
    DiskForecast,
    DryRunTiming,
    GGUFSpeed,
    MemoryForecast,
    PilotForecast,
    Plan,
    PlannedExperiment,
)
from snaketune.contracts.train import StepTiming, TrainingTiming
from snaketune.pilot import forecast as pilot_forecast
from snaketune.pilot.forecast import DecisionSettings, EvidenceTiming, SampleTiming
from snaketune.plan import duration
from snaketune.runtime.machine import Machine
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.token_store import TokenStore, write_store

SAMPLE = EvidenceTiming(
    start_seconds=2.0 - duration.START_SECONDS,
    scoring=(1.0, 1000),  # a millisecond a token
    row_tokens=50.0,
    base=SampleTiming(0.1, 0.01, 40.0),
    pilot=SampleTiming(0.2, 0.02, 40.0),
    reference_tokens=20.0,
)
TRIED = DryRunTiming(
    converter_seconds=6.0, merged_per_second=1e8, quantized_per_second={}, calibrated_per_second={}, gguf={}
)


def experiment(tokens: int, parameters: int = 1000) -> PlannedExperiment:
    return PlannedExperiment(
        steps=10,
        rows_per_step=4,
        rows_seen=40,
        times_each_row_is_seen=1.0,
        num_target_tokens=tokens,
        input_tokens=tokens,
        validations=2,
        parameters=parameters,
        trainable_parameters=10,
        largest_batch=BatchShape(4, 21, 80),
        dtype_bytes=4,
        memory=MemoryForecast(**dict.fromkeys(MemoryForecast.__struct_fields__, 0) | {"total": 9}),
        usable_memory=100,
        warnings=[],
    )


@pytest.fixture
def forecast(tmp_path):
    """A function from experiments and settings to the forecast of a pilot whose every token took a millisecond."""
    store = tmp_path / "train.safetensors"
    write_store(store, [(Rendered(list(range(5, 26)), [False] + [True] * 20), 1.0) for _ in range(40)])
    times = [StepTiming(step=n, seconds=0.5 + 0.08 * n, cpu_seconds=0.1 * n, peak_memory_bytes=7) for n in range(1, 11)]
    files.write_jsonl(tmp_path / "timing.jsonl", times)
    whole = TrainingTiming(
        seconds=1.8,
        cpu_seconds=1.7,
        tokens_per_second=400.0,
        peak_memory_bytes=8,
        peak_resident_bytes=9,
        resumed_from=0,
    )
    files.write_json(tmp_path / "timing.json", whole)
    general = tmp_path / "general.jsonl"
    general.write_text('{"text": "one"}\n' * 10)

    def made(experiments: dict, device: str = "metal", piloted: str = "", **keys) -> PilotForecast:
        pilot = {"rows": 40, "max_steps": 10}
        settings = DecisionSettings(
            experiment=piloted or next(iter(experiments)),
            pilot=section(PilotConfig, **pilot),
            rows_per_step=4,
            model=section(ModelConfig),
            seed=1,
            max_rows=30,
            max_new_tokens=keys.pop("max_new_tokens", 256),
            max_hours=keys.pop("max_hours", None),
            general_rows=str(general),
            variants=["base", "adapter"],
            gguf=keys.pop("gguf", ["f16"]),
            imatrix=keys.pop("imatrix", "auto"),
            mlx=[],
            fidelity=FidelityConfig(rows=6, num_prompts=2, max_new_tokens=8),
            threads=keys.pop("threads", 1),
        )
        tried = keys.pop("tried", TRIED)
        disk = DiskForecast(**dict.fromkeys(DiskForecast.__struct_fields__, 0) | {"total": 5})
        machine = Machine("a machine", device, 100, 100, "the RAM")
        plan = Plan(machine=machine, rows={"train": 40, "valid": 10, "test": 100}, experiments=experiments, disk=disk)
        times = pilot_forecast.PilotTimes.read(tmp_path / "summary.json")
        return pilot_forecast.forecast(settings, plan, TokenStore(store), times, tried, SAMPLE)

    return made


def test_training_is_its_tokens_and_its_validations(forecast):
    found = forecast({"main": experiment(100_000)})
    assert found.seconds["train"] == pytest.approx(100 + 2 * 0.5, abs=0.1)
    assert "other_experiments" not in found.seconds
    assert found.memory_bytes == 9
    assert found.pilot_memory_bytes == 8


def test_every_experiment_is_counted_and_one_of_twice_the_size_twice(forecast):
    found = forecast({"a": experiment(100_000), "b": experiment(50_000), "c": experiment(50_000, parameters=2000)})
    assert found.seconds["other_experiments"] == pytest.approx(51 + 102, abs=0.1)
    assert found.hours * 3600 == pytest.approx(sum(found.seconds.values()), abs=0.5)


def test_forecast_is_of_the_piloted_experiment_wherever_it_stands_in_the_plan(forecast):
    experiments = {"aaa": experiment(50_000), "small": experiment(100_000), "big": experiment(50_000, parameters=2000)}
    found = forecast(experiments, piloted="small")
    assert found.seconds["train"] == pytest.approx(101, abs=0.1)
    assert found.seconds["other_experiments"] == pytest.approx(51 + 102, abs=0.1)


def test_on_a_processor_experiments_run_side_by_side(forecast, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    found = forecast({"a": experiment(10**6), "b": experiment(10**6)}, device="cpu")
    assert found.at_once == 2
    one = forecast({"a": experiment(10**6)}, device="cpu")
    assert found.hours == pytest.approx(one.hours, rel=0.01)


def test_packaging_has_the_converters_own_time(forecast):
    assert forecast({"main": experiment(1)}).seconds["package"] == pytest.approx(2 + 0.7 + 6, abs=0.1)


def test_the_proof_reads_rows_with_every_form_and_completes_prompts_with_those_that_are_handed_over(forecast):
    seconds = forecast({"main": experiment(1)}).seconds["fidelity"]
    loaded, scored, completed = 3 * 2 + 0.7, 5 * 6 * 50 * 0.001, 2 * 2 * 8 * 0.2
    assert seconds == pytest.approx(loaded + scored + completed, abs=0.2)


def test_the_proof_reads_a_gguf_as_fast_as_llama_cpp_does_where_that_was_measured(forecast):
    main = {"main": experiment(1)}
    fast, slow = (
        forecast(main, tried=replace(TRIED, gguf={"f16": GGUFSpeed(read=read / 1000, alone=0.0, together=0.0)}))
        for read in (0.001, 0.003)  # a weight of a model with a thousand
    )
    assert slow.seconds["fidelity"] - fast.seconds["fidelity"] == pytest.approx(6 * 50 * 0.002, abs=0.2)


def test_files_that_are_only_proven_do_not_limit_the_rows_that_others_answer(forecast):
    measured = replace(TRIED, gguf={"f16": GGUFSpeed(read=1.0, alone=1.0, together=1.0)})
    assert forecast({"main": experiment(1)}, tried=measured).answering.gguf == {}


def test_the_proof_of_a_large_model_costs_no_more_rows_than_that_of_a_small_one(forecast):
    small, large = (
        forecast({"main": experiment(1, parameters=size)}).seconds["fidelity"] - size / TRIED.merged_per_second
        for size in (2 * 10**8, 10**9)
    )
    assert large < small


def test_answers_of_both_sets_are_as_long_as_the_sample_shows(forecast):
    seconds = forecast({"main": experiment(1)}).seconds["evaluate"]
    rows, read = 30 + 10, (50 + 30) * 0.001
    base, tuned = 40 * 0.01, 20 * 0.02
    assert seconds == pytest.approx(2 * 2 + rows * (base + tuned + 2 * read), abs=0.1)


def test_evaluation_is_forecast_for_the_rows_that_its_time_allows(forecast):
    whole, cut = (forecast({"main": experiment(1)}, max_hours=hours) for hours in (None, 5 / 3600))
    assert cut.seconds["evaluate"] < whole.seconds["evaluate"]
    assert cut.answering == whole.answering


def test_a_type_with_an_importance_matrix_is_quantized_and_scored_once_more_and_its_rows_are_read(forecast):
    main = {"main": experiment(100_000)}
    plain, compared, needed = (
        forecast(main, gguf=[kind], imatrix=setting).seconds["package"]
        for kind, setting in (("q2_k", False), ("q2_k", "auto"), ("iq2_xs", "auto"))
    )
    row, start = SAMPLE.row_tokens * 1e-3, duration.START_SECONDS
    assert needed - plain == pytest.approx(start + (40 + 2 * 10) * row, abs=0.1)
    assert compared - needed == pytest.approx(start + 10 * row, abs=0.1)


def test_of_several_types_with_an_importance_matrix_rows_are_read_and_scored_in_16_bits_once(forecast):
    main = {"main": experiment(100_000)}
    one, two = (forecast(main, gguf=kinds).seconds["package"] for kinds in (["iq2_xs"], ["iq2_xs", "iq2_s"]))
    assert two - one == pytest.approx(duration.START_SECONDS + 10 * SAMPLE.row_tokens * 1e-3, abs=0.1)


def test_general_rows_are_as_long_as_their_file_says_beside_that_of_the_validation_rows(tmp_path):
    ours, general = tmp_path / "valid.jsonl", tmp_path / "general.jsonl"
    ours.write_text("x" * 99 + "\n" + "y" * 299 + "\n")
    general.write_text("z" * 49 + "\n")
    share = pilot_forecast.general_share
    assert share(SimpleNamespace(general_rows=str(general)), ours) == pytest.approx(50 / 200)
    assert share(SimpleNamespace(general_rows=None), ours) == share(SimpleNamespace(general_rows="no file"), ours) == 1
