"""A training that was stopped, however it was, ends in the same bytes as one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_models
from snaketune import files
from snaketune.engines.mlx import loading, train
from snaketune.errors import TrainingError
from snaketune.train import trainer
from snaketune.train.checkpoints import DeferredSignals
from snaketune.train.metrics_log import TrainingCallback, ValidationMetrics
from training_callbacks import SignalAt, StopAt, Stopped

OUTPUTS = ("adapters.safetensors", "adapter_config.json", "metrics.jsonl", "summary.json")
CHILD = Path(__file__).with_name("killable_training.py")


@pytest.fixture
def folder(tmp_path):
    return tiny_models.TrainingFolder(tmp_path)


def written(folder, name):
    return {one: (folder.folder / name / one).read_bytes() for one in OUTPUTS}


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_training_stopped_at_any_step_resumes_and_ends_in_the_same_bytes(folder, optimizer, method):
    settings = {"epochs": 3, "batch_size": 4, "dropout": 0.2, "eval_steps": 2, "gradient_accumulation_steps": 1}
    settings |= {"optimizer": optimizer, "method": method, "learning_rate": 1e-3}
    folder.train("whole", **settings)
    for step in (1, 2, 5, 8, 9, 18):
        with pytest.raises(Stopped):
            folder.train("stopped", callback=StopAt(step), **settings)
    folder.train("stopped", **settings)
    assert written(folder, "whole") == written(folder, "stopped")


@pytest.mark.parametrize("where", ["replace", "write_json"])
def test_training_stopped_while_a_checkpoint_is_written_resumes_from_the_one_before(folder, monkeypatch, where):
    settings = {"epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 1, "eval_steps": 2}
    folder.train("whole", **settings)
    owner = os if where == "replace" else files
    original = getattr(owner, where)
    stops = 0
    for count in range(1, 9, 2):
        calls = iter(range(1, 1000))

        def stopping(*given, calls=calls, count=count):
            if next(calls) == count:
                raise Stopped
            return original(*given)

        monkeypatch.setattr(owner, where, stopping)
        try:
            folder.train("stopped", **settings)
        except Stopped:
            stops += 1
        monkeypatch.setattr(owner, where, original)
    assert stops > 1
    folder.train("stopped", **settings)
    assert written(folder, "whole") == written(folder, "stopped")


def child(folder, name):
    """The command and environment of a training that can be killed."""
    tests = CHILD.parents[3]
    path = os.pathsep.join([str(tests), str(tests.parent / "scripts")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
    return {"args": [sys.executable, CHILD, folder.folder, name], "env": environment, "text": True}


def killed_at_random(folder, name, moments, seed):
    """Kill a training that many times at random moments after it began to load, and then let it end."""
    chance = random.Random(seed)
    for _ in range(moments):
        running = subprocess.Popen(**child(folder, name), stderr=subprocess.PIPE)
        running.stderr.readline()  # it has validated, or goes on
        time.sleep(chance.uniform(0, 0.4))
        running.kill()
        running.communicate()
    ended = subprocess.run(**child(folder, name), capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_killed_training_ends_in_the_same_bytes(folder):
    subprocess.run(**child(folder, "whole"), check=True, capture_output=True)
    assert "resuming from step" in killed_at_random(folder, "killed", 1, seed=0)
    assert written(folder, "whole") == written(folder, "killed")


@pytest.mark.slow
def test_training_killed_at_twenty_random_moments_ends_in_the_same_bytes(folder):
    subprocess.run(**child(folder, "whole"), check=True, capture_output=True)
    for turn in range(4):
        killed_at_random(folder, f"killed-{turn}", 5, seed=turn + 1)
        assert written(folder, "whole") == written(folder, f"killed-{turn}")


class Order(TrainingCallback):
    """Notes in which order checkpoints and validations come."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def on_checkpoint(self, step: int) -> None:
        self.seen.append(("checkpoint", step))

    def on_validation(self, metrics: ValidationMetrics) -> None:
        self.seen.append(("validation", metrics.step))


@pytest.mark.parametrize(("share", "is_worth_it"), [(0, True), (10**9, False)])
def test_checkpoint_is_written_before_a_validation_where_more_than_its_time_would_be_lost(
    folder, monkeypatch, share, is_worth_it
):
    monkeypatch.setattr(trainer, "SHARE_BEFORE_VALIDATION", share)
    order = Order()
    folder.train("out", callback=order, epochs=2, batch_size=4, gradient_accumulation_steps=1, eval_steps=5)
    before = order.seen[order.seen.index(("validation", 5)) - 1]
    assert (before == ("checkpoint", 5)) == is_worth_it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_training_with_a_checkpoint_and_a_message(folder, number):
    settings = {"epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 1, "eval_steps": 100}
    folder.train("whole", **settings)
    with pytest.raises(TrainingError, match="stopped after step 5; a checkpoint is saved"):
        folder.train("signaled", callback=SignalAt(5, number), **settings)
    assert list((folder.folder / "signaled" / "checkpoints").rglob("checkpoint-00000005.json"))
    folder.train("signaled", **settings)
    assert written(folder, "whole") == written(folder, "signaled")


def test_signal_before_a_validation_leaves_it_to_the_next_run_and_loses_no_step(folder):
    settings = {"epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 1, "eval_steps": 5}
    folder.train("whole", **settings)
    with pytest.raises(TrainingError, match="stopped after step 5; a checkpoint is saved"):
        folder.train("signaled", callback=SignalAt(5, signal.SIGINT), **settings)
    checkpoints = folder.folder / "signaled" / "checkpoints"
    [saved] = checkpoints.rglob("checkpoint-00000005.json")
    assert json.loads(saved.read_text())["state"]["validated_step"] == 0
    folder.train("signaled", **settings)
    assert written(folder, "whole") == written(folder, "signaled")


def test_second_sigint_interrupts_at_once_and_a_second_sigterm_does_not():
    with DeferredSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # to a process group, and from Snakemake as well
        assert signals.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def stop_once(folder, step=6, **settings):
    """Leave a training behind that was stopped at a step."""
    with pytest.raises(Stopped):
        folder.train(callback=StopAt(step), **settings)


QUICK = {"epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 1, "eval_steps": 2}


@pytest.mark.parametrize("what", ["settings", "rows", "base"])
def test_checkpoint_of_another_training_is_never_resumed_from(folder, capsys, what):
    stop_once(folder, **QUICK)
    settings = dict(QUICK)
    if what == "settings":
        settings["alpha"] = 9.0
    elif what == "rows":
        tiny_models.store(folder.train_store, tiny_models.rows(24, seed=9))
    else:
        folder.manifest.write_text(folder.manifest.read_text() + "\n")
    capsys.readouterr()
    folder.train(**settings)
    assert "resuming from" not in capsys.readouterr().err
    assert len([one for one in (folder.folder / "out" / "checkpoints").iterdir() if one.is_dir()]) == 1


def test_checkpoint_of_other_code_is_never_resumed_from(folder, monkeypatch, capsys):
    stop_once(folder, **QUICK)
    monkeypatch.setattr(train, "code_digest", lambda *_: "other")
    capsys.readouterr()
    folder.train(**QUICK)
    assert "resuming from" not in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["truncated", "changed", "note"])
def test_broken_checkpoint_is_named_and_the_one_before_it_used(folder, capsys, damage):
    folder.train("whole", **QUICK)
    stop_once(folder, **QUICK)
    newest = max((folder.folder / "out" / "checkpoints").glob("*/checkpoint-*.safetensors"))
    content = newest.read_bytes()
    if damage == "truncated":
        newest.write_bytes(content[:-40])
    elif damage == "changed":
        newest.write_bytes(content[:-40] + b"x" + content[-39:])
    else:
        newest.with_suffix(".json").write_text("{")
    capsys.readouterr()
    folder.train(**QUICK)
    stderr = capsys.readouterr().err
    assert "checkpoint of step 4 is broken" in stderr
    assert "resuming from step 2" in stderr
    assert written(folder, "whole") == written(folder, "out")


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_checkpoint_whose_best_adapter_is_broken_is_not_used(folder, capsys, damage):
    folder.train("whole", **QUICK)
    folder.train(**QUICK)
    best = next((folder.folder / "out" / "checkpoints").glob("*/best-*.safetensors"))
    content = best.read_bytes()
    best.unlink()
    if damage == "truncated":
        best.write_bytes(content[:-10])
    capsys.readouterr()
    folder.train(**QUICK)
    assert "checkpoint of step 12 is broken" in capsys.readouterr().err
    assert written(folder, "whole") == written(folder, "out")


@pytest.mark.parametrize("content", [b"", b"\0" * 4, b"\xff" * 64, None])
def test_broken_safetensors_file_is_recognized(folder, content):
    folder.train(**QUICK)
    adapter = folder.folder / "out" / "adapters.safetensors"
    assert loading.load_safetensors(adapter)
    adapter.write_bytes(adapter.read_bytes()[:-1] if content is None else content)
    with pytest.raises(TrainingError, match="safetensors file is broken"):
        loading.load_safetensors(adapter)


def test_save_total_limit_is_how_many_checkpoints_remain(folder):
    folder.train(**QUICK, save_total_limit=3)
    files_left = sorted((folder.folder / "out" / "checkpoints").glob("*/checkpoint-*.safetensors"))
    assert [int(one.stem[-3:]) for one in files_left] == [8, 10, 12]
