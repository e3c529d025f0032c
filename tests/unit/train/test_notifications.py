"""The machine stays awake during a training, and a command runs afterwards."""

import pytest
from snaketune.train import tracking


@pytest.mark.parametrize("failing", [False, True])
def test_notify_command_learns_what_ended_and_how(tmp_path, failing):
    output = tmp_path / "output"
    command = f'echo "$SNAKETUNE_RUN $SNAKETUNE_STATUS $SNAKETUNE_MESSAGE" > {output}'
    try:
        with tracking.notify_on_exit(command, "results/jessy"):
            if failing:
                raise ValueError("no luck")
    except ValueError:
        pass
    assert output.read_text().split(maxsplit=2)[:2] == ["results/jessy", "failed" if failing else "done"]
    assert ("no luck" in output.read_text()) == failing


def test_notify_command_that_fails_is_reported_and_changes_nothing(capsys):
    with tracking.notify_on_exit("exit 3", "x"):
        pass
    assert "train.notify failed (exit code 3)" in capsys.readouterr().err


def test_machine_is_kept_awake_on_macos_for_as_long_as_the_training_lasts(monkeypatch):
    calls = []

    class Caffeinate:
        def __init__(self, command):
            calls.append(command[:2])

        def terminate(self):
            calls.append("terminated")

        def wait(self):
            pass

    monkeypatch.setattr(tracking.sys, "platform", "darwin")
    monkeypatch.setattr(tracking.subprocess, "Popen", Caffeinate)
    with tracking.keep_awake():
        assert calls == [["caffeinate", "-i"]]
    assert calls[-1] == "terminated"
