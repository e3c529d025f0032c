"""A training that was stopped, however it was, ends in the same bytes as one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_models
from snaketune.engines.mlx import tensors, train
from snaketune.engines.mlx import trainer as loop
from snaketune.errors import TrainingError
from snaketune.train import signals

OUTPUTS = ("adapters.safetensors", "adapter_config.json", "metrics.jsonl", "summary.json")
CHILD = Path(__file__).with_name("killable_training.py")


@pytest.fixture
def place(tmp_path):
    return tiny_models.Workplace(tmp_path)


def written(place, name):
    return {one: (place.folder / name / one).read_bytes() for one in OUTPUTS}


class Stopped(BaseException):
    """As sudden as a kill, but within the process."""


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_stopped_at_any_update_it_goes_on_and_ends_in_the_same_bytes(place, monkeypatch, optimizer, method):
    changed = {"epochs": 3, "batch_size": 4, "dropout": 0.2, "eval_steps": 2, "gradient_accumulation_steps": 1}
    changed |= {"optimizer": optimizer, "method": method, "learning_rate": 1e-3}
    place.train("whole", **changed)
    update = loop.Run._update
    for stop in (1, 2, 5, 8, 9, 18):

        def stopping(run, number, stop=stop):
            if number == stop:
                raise Stopped
            return update(run, number)

        monkeypatch.setattr(loop.Run, "_update", stopping)
        with pytest.raises(Stopped):
            place.train("stopped", **changed)
    monkeypatch.setattr(loop.Run, "_update", update)
    place.train("stopped", **changed)
    assert written(place, "whole") == written(place, "stopped")


@pytest.mark.parametrize("where", ["replace", "write_json"])
def test_stopped_while_a_checkpoint_is_written_it_goes_on_from_the_one_before(place, monkeypatch, where):
    changed = {"epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 1, "eval_steps": 2}
    place.train("whole", **changed)
    owner = os if where == "replace" else loop.files
    true = getattr(owner, where)
    stops = 0
    for count in range(1, 9, 2):
        calls = iter(range(1, 1000))

        def stopping(*given, calls=calls, count=count):
            if next(calls) == count:
                raise Stopped
            return true(*given)

        monkeypatch.setattr(owner, where, stopping)
        try:
            place.train("stopped", **changed)
        except Stopped:
            stops += 1
        monkeypatch.setattr(owner, where, true)
    assert stops > 1
    place.train("stopped", **changed)
    assert written(place, "whole") == written(place, "stopped")


def child(place, name):
    """The command and environment of a training that can be killed."""
    tests = CHILD.parents[3]
    path = os.pathsep.join([str(tests), str(tests.parent / "scripts")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
    return {"args": [sys.executable, CHILD, place.folder, name], "env": environment, "text": True}


def killed_at_random(place, name, moments, seed):
    """Kill a training that many times at random moments after it began to load, and then let it end."""
    chance = random.Random(seed)
    for _ in range(moments):
        running = subprocess.Popen(**child(place, name), stderr=subprocess.PIPE)
        running.stderr.readline()  # it has validated, or goes on
        time.sleep(chance.uniform(0, 0.4))
        running.kill()
        running.communicate()
    ended = subprocess.run(**child(place, name), capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_killed_it_ends_in_the_same_bytes(place):
    subprocess.run(**child(place, "whole"), check=True, capture_output=True)
    assert "going on from update" in killed_at_random(place, "killed", 1, seed=0)
    assert written(place, "whole") == written(place, "killed")


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_in_the_same_bytes(place):
    subprocess.run(**child(place, "whole"), check=True, capture_output=True)
    for turn in range(4):
        killed_at_random(place, f"killed-{turn}", 5, seed=turn + 1)
        assert written(place, "whole") == written(place, f"killed-{turn}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_checkpoint_and_a_word(place, monkeypatch, number):
    changed = {"epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 1, "eval_steps": 100}
    place.train("whole", **changed)
    update = loop.Run._update

    def signalled(run, one):
        if one == 5 and not run.told.resumed_from:
            os.kill(os.getpid(), number)
        return update(run, one)

    monkeypatch.setattr(loop.Run, "_update", signalled)
    with pytest.raises(TrainingError, match=f"stopped by {number.name} after update 5; a checkpoint is saved"):
        place.train("signalled", **changed)
    assert (place.folder / "signalled" / "checkpoints").rglob("checkpoint-00000005.json")
    place.train("signalled", **changed)
    assert written(place, "whole") == written(place, "signalled")


def test_a_second_sigint_interrupts_at_once_and_a_second_sigterm_does_not():
    with signals.Interrupts() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # to a process group, and from Snakemake as well
        assert received.seen == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def stopped_once(place, monkeypatch, at=6, **changed):
    """Leave a training behind that was stopped at an update."""
    update = loop.Run._update

    def stopping(run, number):
        if number == at:
            raise Stopped
        return update(run, number)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_update", stopping)
        with pytest.raises(Stopped):
            place.train(**changed)


QUICK = {"epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 1, "eval_steps": 2}


@pytest.mark.parametrize("what", ["settings", "rows", "base"])
def test_a_checkpoint_of_something_else_is_never_gone_on_from(place, monkeypatch, capsys, what):
    stopped_once(place, monkeypatch, **QUICK)
    changed = dict(QUICK)
    if what == "settings":
        changed["alpha"] = 9.0
    elif what == "rows":
        tiny_models.store(place.train_store, tiny_models.rows(24, seed=9))
    else:
        place.manifest.write_text(place.manifest.read_text() + "\n")
    capsys.readouterr()
    place.train(**changed)
    assert "going on from" not in capsys.readouterr().err
    assert len([one for one in (place.folder / "out" / "checkpoints").iterdir() if one.is_dir()]) == 1


def test_a_checkpoint_of_other_code_is_never_gone_on_from(place, monkeypatch, capsys):
    stopped_once(place, monkeypatch, **QUICK)
    monkeypatch.setattr(train, "code_digest", lambda *_: "other")
    capsys.readouterr()
    place.train(**QUICK)
    assert "going on from" not in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["truncated", "changed", "note"])
def test_a_broken_checkpoint_is_named_and_the_one_before_it_used(place, monkeypatch, capsys, damage):
    place.train("whole", **QUICK)
    stopped_once(place, monkeypatch, **QUICK)
    newest = max((place.folder / "out" / "checkpoints").glob("*/checkpoint-*.safetensors"))
    content = newest.read_bytes()
    if damage == "truncated":
        newest.write_bytes(content[:-40])
    elif damage == "changed":
        newest.write_bytes(content[:-40] + b"x" + content[-39:])
    else:
        newest.with_suffix(".json").write_text("{")
    capsys.readouterr()
    place.train(**QUICK)
    said = capsys.readouterr().err
    assert "checkpoint of update 4 is broken" in said
    assert "going on from update 2" in said
    assert written(place, "whole") == written(place, "out")


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_checkpoint_whose_best_adapter_is_broken_is_not_used(place, capsys, damage):
    place.train("whole", **QUICK)
    place.train(**QUICK)
    best = next((place.folder / "out" / "checkpoints").glob("*/best-*.safetensors"))
    content = best.read_bytes()
    best.unlink()
    if damage == "truncated":
        best.write_bytes(content[:-10])
    capsys.readouterr()
    place.train(**QUICK)
    assert "checkpoint of update 12 is broken" in capsys.readouterr().err
    assert written(place, "whole") == written(place, "out")


@pytest.mark.parametrize("content", [b"", b"\0" * 4, b"\xff" * 64, None])
def test_a_broken_safetensors_file_is_recognised(place, content):
    place.train(**QUICK)
    adapter = place.folder / "out" / "adapters.safetensors"
    assert tensors.read(adapter)
    adapter.write_bytes(adapter.read_bytes()[:-1] if content is None else content)
    with pytest.raises(TrainingError, match="safetensors file is broken"):
        tensors.read(adapter)


def test_so_many_checkpoints_are_kept_as_were_asked_for(place):
    place.train(**QUICK, save_total_limit=3)
    kept = sorted((place.folder / "out" / "checkpoints").glob("*/checkpoint-*.safetensors"))
    assert [int(one.stem[-3:]) for one in kept] == [8, 10, 12]
