"""What a step asks of a cluster: enough by the plan and the pilot, more on another attempt."""

from pathlib import Path

import pytest
from snaketune import files
from snaketune.contracts.plan import (
    BatchShape,
    DiskForecast,
    MemoryForecast,
    PilotDecision,
    PilotedExperiment,
    PilotForecast,
    Plan,
    PlannedExperiment,
)
from snaketune.plan import cluster_resources
from snaketune.runtime.machine import Machine
from snaketune.train.checkpoints import interruption_error


def planned(memory: int, parameters: int, tokens: int) -> PlannedExperiment:
    parts = dict.fromkeys(MemoryForecast.__struct_fields__, 0) | {"total": memory}
    return PlannedExperiment(
        steps=10,
        rows_per_step=16,
        rows_seen=160,
        times_each_row_is_seen=1.0,
        num_target_tokens=tokens,
        input_tokens=2 * tokens,
        validations=2,
        parameters=parameters,
        trainable_parameters=10,
        largest_batch=BatchShape(4, 64, 128),
        dtype_bytes=4,
        memory=MemoryForecast(**parts),
        usable_memory=10**11,
        warnings=[],
    )


def write_plan(run: Path, **experiments: PlannedExperiment) -> None:
    disk = DiskForecast(**dict.fromkeys(DiskForecast.__struct_fields__, 0))
    machine = Machine("a machine", "cpu", 10**11, 10**11, "the RAM")
    files.write_json(run / "plan.json", Plan(machine=machine, rows={"train": 40}, experiments=experiments, disk=disk))


@pytest.fixture
def run(tmp_path: Path) -> str:
    write_plan(tmp_path, longer=planned(8_000_000_000, 2000, 1500), main=planned(4_000_000_000, 1000, 500))
    forecast = PilotForecast(
        hours=1.2,
        hours_low=1.0,
        hours_high=1.4,
        seconds={"train": 3600.0, "package": 60.0, "evaluate": 600.0},
        at_once=1,
        memory_bytes=0,
        pilot_memory_bytes=0,
        disk_bytes=0,
    )
    decision = PilotDecision(
        decision="go",
        piloted=PilotedExperiment(experiment="main", of=2),
        reasons=[],
        likely_cause=None,
        criteria=[],
        rows=24,
        rows_allowed=24,
        forecast=forecast,
        learning_curve=None,
        overridden=False,
        sample=[],
    )
    files.write_json(tmp_path / "pilot/decision.json", decision)
    return str(tmp_path)


def test_more_than_the_forecast_is_asked_for(run: str) -> None:
    assert cluster_resources.memory_mb(run, "main") == 4000 * 1.3 + 1500
    assert cluster_resources.minutes(run, "main", "train") == 2 * 60 + 10
    assert cluster_resources.minutes(run, "main", "package") == 2 + 10


def test_another_experiment_asks_by_its_own_size(run: str) -> None:
    assert cluster_resources.memory_mb(run, "longer") == 8000 * 1.3 + 1500
    assert cluster_resources.minutes(run, "longer", "train") == 2 * 60 * 2 * 3 + 10
    assert cluster_resources.minutes(run, "longer", "evaluate") == 2 * 10 * 2 + 10


def test_each_further_attempt_asks_for_half_as_much_again(run: str) -> None:
    assert cluster_resources.memory_mb(run, "main", 2) == pytest.approx(
        1.5 * cluster_resources.memory_mb(run, "main"), abs=1
    )
    assert cluster_resources.minutes(run, "main", "train", 3) == pytest.approx(2.25 * 130, abs=1)


def test_it_never_asks_for_more_than_four_times_as_much(run: str) -> None:
    assert cluster_resources.memory_mb(run, "main", 50) == 4 * cluster_resources.memory_mb(run, "main")
    assert cluster_resources.minutes(run, "main", "train", 50) == 4 * 130


def test_a_training_that_ran_out_of_time_alone_asks_for_no_more_memory(run: str, tmp_path: Path) -> None:
    log = tmp_path / "train_adapter-main.log"
    once = cluster_resources.memory_mb(run, "main", 1, log)
    log.write_text(f"snaketune: {interruption_error(7)}\n")
    assert cluster_resources.memory_mb(run, "main", 5, log) == once
    log.write_text("update 7/100\n")  # killed in the middle of its words
    assert cluster_resources.memory_mb(run, "main", 2, log) == pytest.approx(1.5 * once, abs=1)


def test_without_a_plan_or_a_pilot_it_asks_for_what_will_do_for_most(tmp_path: Path, run: str) -> None:
    assert cluster_resources.memory_mb(str(tmp_path / "nothing"), "main") == cluster_resources.UNKNOWN_MB
    assert cluster_resources.minutes(str(tmp_path / "nothing"), "main", "train") == cluster_resources.UNKNOWN_MINUTES
    assert cluster_resources.memory_mb(run, "unknown") == cluster_resources.UNKNOWN_MB


def test_a_plan_that_was_made_again_is_read_again(run: str) -> None:
    before = cluster_resources.memory_mb(run, "main")
    write_plan(Path(run), main=planned(40_000_000_000, 1000, 500))
    assert cluster_resources.memory_mb(run, "main") > before


def test_a_plan_of_another_version_counts_as_none(run: str) -> None:
    files.write_json(f"{run}/plan.json", {"experiments": {"main": {"memory": {"total": 1}}}})
    assert cluster_resources.memory_mb(run, "main") == cluster_resources.UNKNOWN_MB
