"""A training on several processes equals that on one, ends when one of them does, and resumes."""

import os
import signal

import numpy as np
import psutil
import pytest
import tiny_models
from snaketune import files
from snaketune.contracts.train import TrainingSummary
from snaketune.engines.mlx.process_group import MLXProcessGroup
from snaketune.errors import ConfigError, TrainingError
from snaketune.train import launcher, training
from snaketune.train.process_group import ProcessGroup
from training_callbacks import DisturbWorker

ROWS = 23  # with 4 rows an update, the last of two epochs has 2 rows: of three workers one has none
PLAIN = {"epochs": 2, "batch_size": 2, "gradient_accumulation_steps": 2, "eval_steps": 3, "learning_rate": 3e-3}
LONG = PLAIN | {"epochs": 30, "eval_steps": 20}  # still at work when it is interrupted, on a fast machine too

LONG_STEPS = 30 * 6


@pytest.fixture
def folder(tmp_path):
    return tiny_models.TrainingFolder(tmp_path, train=ROWS)


def assert_same_training(folder, one, many):
    """The same adapter to 1e-5, and the same counts of rows and steps."""
    expected, found = folder.adapter(one), folder.adapter(many)
    assert expected.keys() == found.keys()
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name], weights, atol=1e-5, rtol=0)
    first, second = (summary(folder, name) for name in (one, many))
    for field in first.__struct_fields__:
        value = getattr(first, field)
        if field != "positions_per_token":  # each process splits its own rows into micro-batches
            expected = pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
            assert getattr(second, field) == expected, field
    assert [line.step for line in folder.metrics(one)] == [line.step for line in folder.metrics(many)]


def summary(folder, name):
    return files.read_json(folder.folder / name / "summary.json", TrainingSummary)


def processes_of(folder):
    return [one for one in psutil.process_iter(["cmdline"]) if str(folder.folder) in str(one.info["cmdline"])]


def test_training_on_three_processes_equals_that_on_one(folder):
    folder.train("one", **PLAIN)
    folder.train("three", workers=3, **PLAIN)
    assert_same_training(folder, "one", "three")


def test_worker_that_dies_is_named_and_the_next_training_resumes(folder, capsys):
    killing = DisturbWorker(lambda process: process.kill())
    with pytest.raises(TrainingError) as error:
        folder.train("two", workers=2, callback=killing, **LONG)
    assert killing.done
    assert "worker 1 of 2 (127.0.0.1) was killed by SIGKILL" in str(error.value)
    assert not processes_of(folder)
    capsys.readouterr()
    folder.train("two", workers=2, **LONG)
    assert "resuming from step" in capsys.readouterr().err
    folder.train("one", **LONG)
    assert_same_training(folder, "one", "two")


@pytest.mark.slow
def test_worker_that_hangs_is_named_in_bounded_time(folder, monkeypatch):
    monkeypatch.setattr(launcher, "HEARTBEAT_TIMEOUT", 15.0)
    hanging = DisturbWorker(lambda process: process.suspend())
    with pytest.raises(TrainingError, match=r"worker 1 of 2 \(127.0.0.1\) has shown no sign of life for 15 seconds"):
        folder.train("two", workers=2, callback=hanging, **LONG)
    assert not processes_of(folder)


@pytest.mark.slow
def test_worker_timeout_names_the_worker_that_the_others_wait_for(folder):
    with pytest.raises(TrainingError, match=r"worker . of 2 .* has not moved on for 1 seconds"):
        folder.train("two", workers=2, worker_timeout=1, **PLAIN)  # loading takes longer than that


@pytest.mark.slow
@pytest.mark.parametrize("target", ["the step", "a worker", "all of them"])
def test_signal_ends_all_workers_with_a_checkpoint(folder, capsys, target):
    def send(process):
        launch = process.parent()
        if target == "a worker":
            process.send_signal(signal.SIGTERM)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        if target == "all of them":  # as a cluster does
            for one in [launch, *launch.children(recursive=True)]:
                one.send_signal(signal.SIGTERM)

    whole = LONG | {"eval_steps": LONG_STEPS}  # so that only the signal makes a checkpoint on the way
    with pytest.raises(TrainingError, match="the training was stopped"):
        folder.train("two", workers=2, callback=DisturbWorker(send), **whole)
    steps = [int(path.stem[-8:]) for path in (folder.folder / "two" / "checkpoints").rglob("checkpoint-*.json")]
    assert 0 < max(steps) < LONG_STEPS
    capsys.readouterr()
    folder.train("two", workers=2, **whole)
    assert f"resuming from step {max(steps)} " in capsys.readouterr().err
    folder.train("one", **whole)
    assert_same_training(folder, "one", "two")


def test_error_in_a_worker_is_the_error_of_the_training(folder):
    with pytest.raises(ConfigError, match="has no linear layer") as error:
        folder.train("two", workers=2, target_modules=["nothing"])
    assert error.value.where == "train.target_modules"
    assert "all-linear" in error.value.fix


def test_worker_with_other_rows_than_the_main_process_is_named():
    class Second(ProcessGroup):
        rank = 1

        def __init__(self):
            pass

        def broadcast_object(self, value, _type):
            return f"not {value}"

    with pytest.raises(TrainingError, match="worker 1 has other rows"):
        training.assert_same_inputs(Second(), "rows")


def test_process_group_of_one_is_a_no_op():
    group = MLXProcessGroup()
    rows = np.arange(5)
    assert group.shard(rows).tolist() == rows.tolist()
    assert group.all_reduce_counts(3, 4) == [3, 4]
    assert group.all_reduce_max(7, 0) == [7, 0]
    assert group.broadcast_object({"a": 1}, dict) == {"a": 1}
    weights = {"a": object()}
    assert group.all_reduce(weights) is weights
    assert group.broadcast_arrays(weights) is weights
