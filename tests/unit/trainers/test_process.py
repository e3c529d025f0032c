"""A trainer's process: a missing environment, its last words, its rows, and what its code digest covers."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import tiny_models
from snaketune.errors import ResourceError, TrainingError
from snaketune.runtime.code_digest import modules_of
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.token_store import TokenStore
from snaketune.trainers import describe, environment, process, train, trainer_of

FAILED = """Loading the model
Traceback (most recent call last):
  File "x.py", line 3, in <module>
    train()
\x1b[31mValueError: the learning rate is negative\x1b[0m
  0%|          | 0/60 [00:00<?, ?it/s]
"""


def test_a_missing_environment_is_named_with_the_command_that_builds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    with pytest.raises(ResourceError, match="the trainer axolotl is not installed") as caught:
        environment.python_of("axolotl")
    assert "make trainer NAME=axolotl" in caught.value.fix


def test_an_environment_of_other_pins_is_refused_and_one_without_a_stamp_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    python = tmp_path / "trl" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert environment.python_of("trl") == python
    (tmp_path / "trl" / environment.STAMP).write_text("of an earlier version")
    with pytest.raises(ResourceError, match="built from other pins"):
        environment.python_of("trl")
    (tmp_path / "trl" / environment.STAMP).write_text(environment.digest("trl"))
    assert environment.python_of("trl") == python


def test_an_environment_that_reads_the_packages_of_another_project_is_refused_with_the_command_that_builds_it(
    tmp_path, monkeypatch
):
    for project in ("original", "copy"):
        (tmp_path / project / ".venv" / "packages").mkdir(parents=True)
        own = tmp_path / project / ".trainers" / "trl" / "lib" / "python3.11" / "site-packages"
        own.mkdir(parents=True)
        (own.parents[2] / "bin").mkdir()
        (own.parents[2] / "bin" / "python").touch()
    shared = own / environment.SHARED
    monkeypatch.setattr(environment, "PROJECT", tmp_path / "copy")
    monkeypatch.setattr(environment, "FOLDER", tmp_path / "copy" / ".trainers")
    shared.write_text("../../../../../.venv/packages\n")
    assert environment.python_of("trl") == own.parents[2] / "bin" / "python"
    for elsewhere in (tmp_path / "original" / ".venv" / "packages", tmp_path / "gone"):
        shared.write_text(f"{elsewhere}\n")
        with pytest.raises(ResourceError, match="The project was copied or moved") as caught:
            environment.python_of("trl")
        assert str(elsewhere) in caught.value.what
        assert "`make trainer NAME=trl`" in caught.value.fix


def test_the_last_words_are_the_last_error_and_without_one_the_last_line(tmp_path):
    log = tmp_path / "trainer.log"
    log.write_text(FAILED)
    error = process.failure(describe("trl"), 1, log)
    assert isinstance(error, TrainingError)
    assert "TRL stopped with exit code 1: ValueError: the learning rate is negative" in str(error)
    assert process.last_words("starting\nno luck\n\n") == "no luck"
    assert process.last_words("") == "it said nothing"


def test_a_killed_trainer_and_a_full_disk_are_faults_of_the_machine(tmp_path):
    log = tmp_path / "trainer.log"
    log.write_text("OSError: [Errno 28] No space left on device")
    assert "the disk is full" in str(process.failure(describe("axolotl"), 1, log))
    killed = process.failure(describe("axolotl"), -signal.SIGKILL, log)
    assert isinstance(killed, ResourceError)
    assert "memory" in str(killed)


def test_lines_that_another_process_is_still_writing_are_read_once_whole(tmp_path):
    path = tmp_path / "events.jsonl"
    with open(path, "wb", buffering=0) as out, open(path, "rb") as source:
        lines = process.LineReader(source)
        out.write(b'{"a": 1}\n{"b"')
        assert list(lines.new()) == [b'{"a": 1}']
        out.write(b": 2}\n")
        assert list(lines.new()) == [b'{"b": 2}']
        assert list(lines.new()) == []


def test_rows_carry_labels_where_there_is_loss_and_prompts_too_when_they_are_trained(tmp_path):
    made = [Rendered([9, 4, 7, 5], [False, False, True, True]), Rendered([3, 8, 6, 2, 1], [0, 1, 0, 1, 1])]
    store = TokenStore(tiny_models.store(tmp_path / "rows.safetensors", made))
    path = tmp_path / "rows.jsonl"
    train.write_rows(path, store, np.array([1, 0]))
    assert [json.loads(line)["labels"] for line in path.read_text().splitlines()] == [
        [-100, 8, -100, 2, 1],
        [-100, -100, 7, 5],
    ]
    train.write_rows(path, store, np.array([0]), train_on_prompts=True)
    assert json.loads(path.read_text())["labels"] == [9, 4, 7, 5]
    assert train.count_several_answers(store, np.array([0, 1])) == 1


def test_the_digest_of_a_trainer_covers_its_own_files_and_not_those_of_another():
    first = {name: environment.code_of(name) for name in ("trl", "axolotl", "mlx-lm")}
    assert len(set(first.values())) == 3
    assert {environment.driver_of(name).is_file() for name in first} == {True}
    assert {environment.pins(name).is_file() for name in first} == {True}


def test_a_training_by_this_project_itself_depends_on_no_trainer_of_the_field():
    script = environment.PROJECT / "scripts" / "train_adapter.py"
    reached = [name for name in modules_of(script) if "/trainers/" in name]
    assert sorted(reached) == ["snaketune/trainers/__init__.py", "snaketune/trainers/description.py"]


def test_a_job_is_trained_by_the_engine_or_by_the_process_of_its_trainer(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path)
    engine = object()
    assert trainer_of(folder.job(), lambda: engine) is engine
    assert trainer_of(folder.job(trainer="trl"), lambda: engine) is train
