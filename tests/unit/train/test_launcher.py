"""The error of a training on several processes names the one that failed, and what the backend said."""

import json
import sys

import msgspec
import pytest
import tiny_models
from snaketune.errors import TrainingError
from snaketune.train.launcher import Ended, Output, WorkerLauncher
from snaketune.train.metrics_log import TrainingCallback

LOSING = """
from snaketune.train import worker
from snaketune.train.process_group import PeerLostError
def join(job):
    raise PeerLostError(f"no backend\\n  for {job.seed} devices")
worker.run(0, join, engine=None)
"""


def error_of(command, *hosts):
    """The message of a training whose workers are this command."""
    launcher = WorkerLauncher(command, list(hosts), 60.0, TrainingCallback())
    try:
        with pytest.raises(TrainingError) as error:
            launcher.run()
    finally:
        launcher.close()
    return str(error.value)


def saying(*messages):
    """A command that sends these messages and ends."""
    lines = [msgspec.json.encode(one).decode() for one in messages]
    return [sys.executable, "-c", f"print({json.dumps(chr(10).join(lines))})"]


def test_what_the_backend_said_when_a_worker_lost_the_others_is_in_the_error_of_the_training(tmp_path):
    job = tiny_models.TrainingFolder(tmp_path).job(seed=5)
    error = error_of([sys.executable, "-c", LOSING, msgspec.json.encode(job).decode()], "here")
    assert "worker 0 of 1 (here) did not end well" in error
    assert 'worker 0 lost the others: "no backend for 5 devices"' in error


def test_worker_that_ends_without_a_word_is_named_beside_what_another_says_of_it():
    lost = Ended(rank=1, how="lost", reason="connection closed")
    error = error_of(saying(Output(rank=0, line="step 7"), lost), "left", "right")
    words = (
        'worker 0 of 2 (left) did not end well; its last lines: "step 7"; worker 1 lost the others: "connection closed"'
    )
    assert words in error


def test_defect_of_a_worker_is_told_without_what_the_others_say_of_its_end():
    defect = [Output(rank=1, line="ZeroDivisionError"), Ended(rank=1, how="defect")]
    error = error_of(saying(Ended(rank=0, how="lost", reason="connection closed"), *defect), "left", "right")
    assert 'worker 1 of 2 (right) did not end well; its last lines: "ZeroDivisionError"' in error
    assert "connection closed" not in error
