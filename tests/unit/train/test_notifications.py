"""What happens around a training: words, trackers, notifications, the picture of the loss."""

import sys
import types

import pytest
from snaketune import files
from snaketune.errors import ConfigError
from snaketune.pilot import forecast_record
from snaketune.train import loss_plot, metrics_log, notifications, tracking


@pytest.mark.parametrize("failing", [False, True])
def test_a_notification_says_what_ended_and_how(tmp_path, failing):
    told = tmp_path / "told"
    command = f'echo "$SNAKETUNE_RUN $SNAKETUNE_STATUS $SNAKETUNE_MESSAGE" > {told}'
    try:
        with notifications.notifying(command, "results/jessy"):
            if failing:
                raise ValueError("no luck")
    except ValueError:
        pass
    assert told.read_text().split(maxsplit=2)[:2] == ["results/jessy", "failed" if failing else "done"]
    assert ("no luck" in told.read_text()) == failing


def test_a_notification_that_fails_is_said_and_changes_nothing(capsys):
    with notifications.notifying("exit 3", "x"):
        pass
    assert "train.notify failed (exit code 3)" in capsys.readouterr().err


def test_on_macos_the_machine_is_kept_awake_as_long_as_the_training_lasts(monkeypatch):
    calls = []

    class Keeper:
        def __init__(self, command):
            calls.append(command[:2])

        def terminate(self):
            calls.append("terminated")

        def wait(self):
            pass

    monkeypatch.setattr(notifications.sys, "platform", "darwin")
    monkeypatch.setattr(notifications.subprocess, "Popen", Keeper)
    with notifications.awake():
        assert calls == [["caffeinate", "-i"]]
    assert calls[-1] == "terminated"


def test_a_tracker_that_is_not_installed_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match="pip install tensorboardX"):
        tracking.tracker("tensorboard", tmp_path, "id", {})


def test_numbers_reach_tensorboard_and_wandb_by_the_same_interface(tmp_path, monkeypatch):
    seen = []
    writer = types.SimpleNamespace(add_scalar=lambda *one: seen.append(one), close=lambda: seen.append("closed"))
    board = types.SimpleNamespace(SummaryWriter=lambda folder: seen.append(folder) or writer)
    run = types.SimpleNamespace(log=lambda numbers, step: seen.append((numbers, step)), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "tensorboardX", board)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **how: seen.append(how["id"]) or run))
    for name in ("tensorboard", "wandb", None):
        one = tracking.tracker(name, tmp_path, "abc", {})
        one.log(3, {"loss": 1.5})
        one.close()
    assert seen == [str(tmp_path / "tensorboard"), ("loss", 1.5, 3), "closed", "abc", ({"loss": 1.5}, 3)]


def test_the_forecast_stands_beside_the_outcome_of_the_experiment_that_was_tried(tmp_path):
    timing, decision = tmp_path / "timing.json", tmp_path / "decision.json"
    forecast = {"seconds": {"train": 9.5}, "memory_bytes": 70}
    files.write_json(decision, {"piloted": {"experiment": "main", "of": 2}, "forecast": forecast})
    files.write_json(timing, {"seconds": 8.0})
    forecast_record.add(timing, decision, "other")
    assert files.read_json(timing) == {"seconds": 8.0}
    forecast_record.add(timing, decision, "main")
    assert files.read_json(timing) == {"seconds": 8.0, "forecast": {"seconds": 9.5, "peak_memory_bytes": 70}}


def test_a_log_is_cut_back_to_where_its_checkpoint_was(tmp_path):
    log = metrics_log.Log(tmp_path / "m.jsonl")
    log.write(update=1)
    size = log.size()
    log.write(update=2)
    log.close()
    again = metrics_log.Log(tmp_path / "m.jsonl", size)
    again.write(update=3)
    again.close()
    assert [row["update"] for row in files.read_jsonl(tmp_path / "m.jsonl")] == [1, 3]


def test_a_number_that_is_not_finite_is_logged_as_null():
    assert metrics_log.short(float("nan")) is None
    assert metrics_log.short(1 / 3) == 0.3333333


@pytest.mark.parametrize(("seconds", "shown"), [(5, "0:05"), (65, "1:05"), (3725, "1:02:05")])
def test_a_clock_shows_hours_only_where_there_are_any(seconds, shown):
    assert metrics_log.clock(seconds) == shown


@pytest.mark.parametrize("rows", [1, 120])
def test_the_same_metrics_give_the_same_picture(tmp_path, rows):
    lines = [{"update": 0, "validation_loss": 3.0}]
    lines += [{"update": one, "loss": 3 / one} for one in range(1, rows)]
    lines += [{"update": rows, "loss": None}, {"update": rows, "validation_loss": 2.0}]
    files.write_jsonl(tmp_path / "m.jsonl", lines)
    for name in ("a.svg", "b.svg"):
        loss_plot.draw(tmp_path / "m.jsonl", tmp_path / name)
    picture = (tmp_path / "a.svg").read_bytes()
    assert picture == (tmp_path / "b.svg").read_bytes()
    assert b"2.0000" in picture
    assert b"<dc:date>" not in picture
