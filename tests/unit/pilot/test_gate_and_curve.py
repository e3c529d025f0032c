"""The gate after the decision, and the learning curve."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from snaketune.contracts.plan import PilotDecision, PilotedExperiment, PilotForecast
from snaketune.contracts.train import StepMetrics, TrainingOutputs
from snaketune.errors import NoGoError
from snaketune.files import write_json
from snaketune.pilot import criteria, forecast
from snaketune.train import training
from snaketune.train.batches import subset_for_fraction

FORECAST = PilotForecast(
    hours=20.0,
    hours_low=18.0,
    hours_high=22.0,
    seconds={"train": 70_000.0},
    at_once=1,
    memory_bytes=1,
    pilot_memory_bytes=1,
    disk_bytes=5,
)


@pytest.fixture
def decision(tmp_path):
    """A function that writes a decision, and the paths of it and of the gate's file."""

    def write(made: str):
        failed = criteria.time(20, 22, 10)
        write_json(
            tmp_path / "pilot/decision.json",
            PilotDecision(
                decision=made,
                piloted=PilotedExperiment(experiment="small", of=3),
                reasons=[f"time: {failed.message}"],
                likely_cause="fewer epochs or rows",
                criteria=[criteria.memory(1, 2), failed],
                rows=24,
                rows_allowed=24,
                forecast=FORECAST,
                learning_curve=None,
                overridden=False,
                sample=[],
            ),
        )
        return tmp_path / "pilot/decision.json", tmp_path / "pilot/go"

    return write


def test_after_a_go_the_file_is_always_the_same(decision):
    made, go = decision("go")
    criteria.write_go_or_raise(made, "stop", go)
    assert go.read_text() == "go\n"


def test_after_a_no_go_there_is_no_file_and_the_table_is_told(decision):
    made, go = decision("no-go")
    with pytest.raises(NoGoError) as caught:
        criteria.write_go_or_raise(made, "stop", go)
    assert not go.exists()
    said = str(caught.value)
    assert "fail    time" in said
    assert "pass    memory" in said
    assert "fewer epochs or rows" in said
    assert "of small, the first of 3 experiments" in said


def test_older_report_is_set_aside_and_says_so_after_a_no_go(decision, tmp_path):
    made, go = decision("no-go")
    page = tmp_path / "report/index.html"
    page.parent.mkdir()
    page.write_text("<html><body><p>rank 8</p></body></html>")
    with pytest.raises(NoGoError, match=r"report of the training before is now .*report/index-older\.html"):
        criteria.write_go_or_raise(made, "stop", go)
    assert not page.exists()
    older = page.with_name("index-older.html").read_text()
    assert "older than the last pilot" in older
    assert "<p>rank 8</p>" in older


def test_report_stays_where_it_is_after_a_go_or_an_overridden_no_go(decision, tmp_path):
    page = tmp_path / "report/index.html"
    page.parent.mkdir()
    page.write_text("<html><body></body></html>")
    for word, on_no_go in (("go", "stop"), ("no-go", "continue")):
        made, go = decision(word)
        criteria.write_go_or_raise(made, on_no_go, go)
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]


def test_an_overridden_no_go_writes_the_same_file(decision, capsys):
    made, go = decision("no-go")
    criteria.write_go_or_raise(made, "continue", go)
    assert go.read_text() == "go\n"
    assert "overridden" in capsys.readouterr().err


def losses_of(curve: Callable[[int], float]) -> list[StepMetrics]:
    """The lines of a hundred steps whose loss is `curve` of the step."""
    return [
        StepMetrics(
            step=step,
            epoch=None,
            loss=curve(step),
            learning_rate=0.1,
            grad_norm=1.0,
            num_target_tokens=1,
            padding_ratio=0.0,
        )
        for step in range(1, 101)
    ]


@given(start=st.floats(0.5, 10), power=st.floats(0.05, 0.5), doublings=st.integers(1, 6))
def test_a_loss_that_falls_as_a_power_is_carried_on_to_the_full_run(start, power, doublings):
    metrics = losses_of(lambda step: start * step**-power)
    best = start * 100**-power
    full = 100 * 2**doublings
    found = forecast.expected_loss(metrics, best, 100, full)
    assert found["validation_loss"] == pytest.approx(start * full**-power, rel=0.02, abs=1e-3)
    assert found["validation_loss_low"] <= found["validation_loss"] <= found["validation_loss_high"]


def test_nothing_is_expected_of_a_pilot_too_short_or_a_run_no_longer_than_it():
    metrics = losses_of(lambda step: 3.0 / step)
    assert forecast.expected_loss(metrics[:8], 1.0, 8, 100) is None
    assert forecast.expected_loss(metrics, 1.0, 100, 100) is None
    assert forecast.expected_loss(metrics, None, 100, 1000) is None


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(100, 2.0), (300, 1.5), (1000, 1.1)], "likely"),
        ([(100, 2.0), (300, 1.11), (1000, 1.10)], "unlikely"),
        ([(300, 1.0), (1000, 1.5)], "unclear"),
        ([(1000, 1.5)], "unclear"),
        ([(300, None), (1000, 1.5)], "unclear"),
    ],
)
def test_the_curve_says_whether_more_rows_would_help(points, expected):
    assert forecast.assess_learning_curve(points).more_data_helps == expected


def test_a_doubling_is_measured_between_the_last_two_parts():
    found = forecast.assess_learning_curve([(100, 9.0), (250, 2.0), (1000, 1.0)])
    assert found.per_doubling == pytest.approx(1 / math.log2(4))


@given(share=st.floats(0.01, 1), rows=st.integers(1, 5000), per_step=st.integers(1, 64))
def test_every_part_makes_as_many_updates_as_the_pilot(share, rows, per_step):
    part, updates = subset_for_fraction(share, rows, None, per_step)
    assert 1 <= part <= rows
    assert updates == math.ceil(rows / per_step)
    assert subset_for_fraction(share, rows, 7, per_step)[1] == 7


def test_pilot_and_parts_of_it_are_the_run_s_training_on_fewer_rows(tmp_path: Path) -> None:
    made = tiny_models.train_config(rank=3, epochs=7, batch_size=2, gradient_accumulation_steps=2)
    whole, store = msgspec.to_builtins(made), tiny_models.store(tmp_path / "rows.safetensors", tiny_models.rows(40))
    tracked = {"train": {k: v for k, v in whole.items() if k != "memory_limit"}, "model": {"dtype": "auto"}, "seed": 3}
    tracked |= {"pilot": {"rows": 100, "max_steps": None}, "fraction": 0.25}
    params = SimpleNamespace(config=json.dumps(tracked), untracked=json.dumps({"train": {"memory_limit": 2.0}}))
    inputs = SimpleNamespace(train=str(store), valid="valid", model="model")
    pilot, part = training.pilot_job(params, inputs, tmp_path), training.subset_job(params, inputs, tmp_path)
    assert (pilot.config.rank, pilot.config.memory_limit, pilot.seed) == (3, 2.0, 3)
    assert (pilot.num_rows, pilot.config.epochs, pilot.config.max_steps) == (100, 1, None)
    assert (part.num_rows, part.config.max_steps) == (10, 10)  # a quarter of the 40 that there are, as many steps
    assert part.outputs == pilot.outputs == TrainingOutputs.in_folder(tmp_path)
