"""A training on several processes is the training on one, ends when one of them does, and goes on."""

import json
import os
import signal

import numpy as np
import psutil
import pytest
import tiny_models
from snaketune.config import experiments, hosts, schema, sections
from snaketune.engines.mlx import launcher
from snaketune.engines.mlx import train as trainer
from snaketune.engines.mlx.process_group import Workers
from snaketune.errors import ConfigError, TrainingError

ROWS = 23  # with 4 rows an update, the last of two epochs has 2 rows: of three workers one has none
PLAIN = {"epochs": 2, "batch_size": 2, "gradient_accumulation_steps": 2, "eval_steps": 3, "learning_rate": 3e-3}
LONG = PLAIN | {"epochs": 30, "eval_steps": 20}  # still at work when it is interrupted, on a fast machine too


@pytest.fixture
def place(tmp_path):
    return tiny_models.Workplace(tmp_path, train=ROWS)


def assert_same_training(place, one, many):
    """The same adapter to 1e-5, and the same account of rows and updates."""
    expected, found = place.adapter(one), place.adapter(many)
    assert expected.keys() == found.keys()
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name], weights, atol=1e-5, rtol=0)
    summaries = [json.loads((place.folder / name / "summary.json").read_text()) for name in (one, many)]
    for key, value in summaries[0].items():
        if key not in ("positions_per_token",):  # each cuts its own part into micro-batches
            assert summaries[1][key] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value), key
    assert [line["update"] for line in place.metrics(one)] == [line["update"] for line in place.metrics(many)]


def when_under_way(monkeypatch, act, worker=1, steps=25):
    """Do something once to a running training: `act` is given the process of that worker."""
    look, done = launcher.Launch._hung, []

    def looking(launch, now):
        if not done and launch.workers[worker].steps > steps:
            done.append(True)
            below = psutil.Process(launch.process.pid).children(recursive=True)
            act(next(one for one in below if one.environ().get("MLX_RANK") == str(worker)))
        return look(launch, now)

    monkeypatch.setattr(launcher.Launch, "_hung", looking)
    return done


def test_three_workers_are_one_training(place):
    place.train("one", **PLAIN)
    place.train("three", workers=3, **PLAIN)
    assert_same_training(place, "one", "three")


def test_a_worker_that_dies_is_named_and_the_next_run_goes_on(place, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        died = when_under_way(patch, lambda process: process.kill())
        with pytest.raises(TrainingError) as error:
            place.train("two", workers=2, **LONG)
    assert died
    assert "worker 1 of 2 (127.0.0.1) was killed by SIGKILL" in str(error.value)
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(place.folder) in str(one.info["cmdline"])]
    capsys.readouterr()
    place.train("two", workers=2, **LONG)
    assert "going on from update" in capsys.readouterr().err
    place.train("one", **LONG)
    assert_same_training(place, "one", "two")


@pytest.mark.slow
def test_a_worker_that_hangs_is_named_in_bounded_time(place, monkeypatch):
    monkeypatch.setattr(launcher, "SILENCE", 15.0)
    when_under_way(monkeypatch, lambda process: process.suspend())
    with pytest.raises(TrainingError, match=r"worker 1 of 2 \(127.0.0.1\) has shown no sign of life for 15 seconds"):
        place.train("two", workers=2, **LONG)
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(place.folder) in str(one.info["cmdline"])]


@pytest.mark.slow
def test_where_no_worker_moves_on_the_one_that_the_others_wait_for_is_named(place):
    with pytest.raises(TrainingError, match=r"worker . of 2 .* has not moved on for 1 seconds"):
        place.train("two", workers=2, worker_timeout=1, **PLAIN)  # to load takes longer than that


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the step", "a worker", "all of them"])
def test_a_signal_ends_all_with_a_checkpoint(place, monkeypatch, whom):
    def signalled(process):
        launch = process.parent()
        if whom == "a worker":
            process.send_signal(signal.SIGTERM)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        if whom == "all of them":  # as a cluster does
            for one in [launch, *launch.children(recursive=True)]:
                one.send_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        when_under_way(patch, signalled)
        with pytest.raises(TrainingError, match="stopped by SIGTERM"):
            place.train("two", workers=2, **LONG)
    kept = [int(one.stem[-8:]) for one in (place.folder / "two" / "checkpoints").rglob("checkpoint-*.json")]
    assert max(kept) % LONG["eval_steps"] or max(kept) > 20
    place.train("two", workers=2, **LONG)
    place.train("one", **LONG)
    assert_same_training(place, "one", "two")


@pytest.mark.slow
def test_an_error_in_the_workers_is_the_error_of_the_training(place):
    with pytest.raises(ConfigError, match="has no linear layer"):
        place.train("two", workers=2, target_modules=["nothing"])


def test_a_worker_with_other_rows_is_named():
    class Second(Workers):
        number = 1

        def told(self, value):
            return f"not {value}"

    with pytest.raises(TrainingError, match="worker 0 has other rows"):
        trainer._check_same(Second(), "rows")


def test_alone_everything_stays_as_it_is():
    alone = Workers()
    rows = np.arange(5)
    assert alone.share(rows).tolist() == rows.tolist()
    assert alone.counts(3, 4) == [3, 4]
    assert alone.told({"a": 1}) == {"a": 1}
    given = {"a": object()}
    assert alone.summed(given) is given
    assert alone.given(given) is given


def train_section(**changed):
    return schema.complete({"run": "x"})["train"] | changed


def test_workers_are_spread_over_hosts(tmp_path):
    assert hosts.names(train_section(workers=2)) == ["127.0.0.1"] * 2
    spread = train_section(workers=4, hosts=["10.0.0.1", "10.0.0.2"])
    assert hosts.names(spread) == ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"]
    assert hosts.launch_arguments(spread) == ["--hosts", "10.0.0.1,10.0.0.2", "-n", "2"]
    hostfile = tmp_path / "hosts.json"
    hostfile.write_text(json.dumps({"backend": "jaccl", "hosts": [{"ssh": "mac-1"}, {"ssh": "mac-2"}]}))
    filed = train_section(workers=2, hosts=str(hostfile))
    assert hosts.names(filed) == ["mac-1", "mac-2"]
    assert hosts.launch_arguments(filed) == ["--hostfile", str(hostfile)]


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ({"workers": 3, "hosts": ["a", "b"]}, "3 workers cannot be spread evenly over 2 hosts"),
        ({"hosts": ["a", "b"]}, "1 workers cannot be spread evenly over 2 hosts"),
        ({"workers": 2, "hosts": "nowhere.json"}, "this hostfile cannot be read"),
    ],
)
def test_workers_that_do_not_fit_their_hosts_are_refused_before_anything_runs(train, says):
    with pytest.raises(ConfigError, match=says):
        experiments.expand(sections.load({"run": "x", "train": train}))
