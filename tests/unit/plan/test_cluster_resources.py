"""What a step asks of a cluster: enough by the plan and the pilot, more on another attempt."""

import signal
from pathlib import Path

import pytest
from snaketune import files
from snaketune.plan import cluster_resources
from snaketune.train.signals import interrupted


@pytest.fixture
def run(tmp_path: Path) -> str:
    one = {"memory": {"total": 4_000_000_000}, "parameters": 1000, "trained_tokens": 500}
    longer = {"memory": {"total": 8_000_000_000}, "parameters": 2000, "trained_tokens": 1500}
    files.write_json(tmp_path / "plan.json", {"experiments": {"longer": longer, "main": one}})
    seconds = {"train": 3600.0, "package": 60.0, "evaluate": 600.0}
    files.write_json(
        tmp_path / "pilot/decision.json", {"piloted": {"experiment": "main", "of": 2}, "forecast": {"seconds": seconds}}
    )
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
    log.write_text(f"snaketune: {interrupted(signal.SIGTERM, 7)}\n")
    assert cluster_resources.memory_mb(run, "main", 5, log) == once
    log.write_text("update 7/100\n")  # killed in the middle of its words
    assert cluster_resources.memory_mb(run, "main", 2, log) == pytest.approx(1.5 * once, abs=1)


def test_without_a_plan_or_a_pilot_it_asks_for_what_will_do_for_most(tmp_path: Path, run: str) -> None:
    assert cluster_resources.memory_mb(str(tmp_path / "nothing"), "main") == cluster_resources.UNKNOWN_MB
    assert cluster_resources.minutes(str(tmp_path / "nothing"), "main", "train") == cluster_resources.UNKNOWN_MINUTES
    assert cluster_resources.memory_mb(run, "unknown") == cluster_resources.UNKNOWN_MB


def test_a_plan_that_was_made_again_is_read_again(run: str) -> None:
    before = cluster_resources.memory_mb(run, "main")
    one = {"memory": {"total": 40_000_000_000}, "parameters": 1000, "trained_tokens": 500}
    files.write_json(f"{run}/plan.json", {"experiments": {"main": one}})
    assert cluster_resources.memory_mb(run, "main") > before
