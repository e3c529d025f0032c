"""A fault of the machine or of the place ends in a clear message, and `snakemake` goes on from what it leaves."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import faults
import psutil
import pytest
from project_copy import Project, tiny
from tools import SMALL_DISK

pytestmark = pytest.mark.e2e


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB: a copy of the project with its bytecode and its results takes half of it."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(faults.small_disk(tmp_path / "disk", megabytes=32))
        except PermissionError:
            pytest.skip(SMALL_DISK.reason)
        yield folder


def told(said: str) -> str:
    """What we said, in the words that a person reads."""
    return "\n".join(line for line in said.splitlines() if "snaketune: " in line)


def test_a_full_and_then_a_read_only_disk_end_the_run_at_its_start(finished: Project, disk: Path) -> None:
    project = finished.twin(disk / "project")
    (project.folder / "results/tiny/data/leaks.passed").unlink()
    with faults.full(disk):
        said = project.snakemake()
        assert said.returncode == 1
        assert "No space left on device" in told(said.stdout)
        assert "Traceback" not in said.stdout
    with faults.read_only(disk):
        said = project.snakemake()
        assert said.returncode == 1
        assert "Read-only file system" in said.stdout
        assert "Traceback" not in said.stdout
    assert project.snakemake().returncode == 0


def test_a_results_folder_moved_elsewhere_is_still_finished(finished: Project, tmp_path: Path) -> None:
    moved = finished.twin(tmp_path / 'a "moved" project; $HOME')
    said = moved.snakemake()
    assert said.returncode == 0, said.stdout
    assert "Nothing to be done" in said.stdout


def test_without_a_network_a_hub_model_is_named_and_nothing_else_is_lost(finished: Project, tmp_path: Path) -> None:
    project = finished.twin(tmp_path / "project")
    project.replace("tiny.yaml", "base: tiny-base", "base: someone/a-model")
    target = "results/tiny/plan.json"
    said = project.snakemake(target, HF_ENDPOINT="http://127.0.0.1:9")
    assert said.returncode == 1
    assert "model.base: someone/a-model is not on this machine and the hub cannot be reached" in told(said.stdout)
    assert "Traceback" not in said.stdout
    project.replace("tiny.yaml", "base: someone/a-model", "base: tiny-base")
    assert "Nothing to be done" in project.snakemake().stdout


def test_a_base_whose_files_change_under_the_run_is_noticed(finished: Project, tmp_path: Path) -> None:
    project = finished.twin(tmp_path / "project")
    weights = project.folder / "tiny-base/model.safetensors"
    whole, adapter = weights.read_bytes(), project.folder / "results/tiny/train/main/adapters.safetensors"
    before = adapter.read_bytes()
    adapter.unlink()
    when = weights.stat().st_mtime
    weights.write_bytes(whole[:-64])
    os.utime(weights, (when, when))  # as if it were never touched: only reading it can tell
    said = project.snakemake(str(adapter.relative_to(project.folder)))
    assert said.returncode == 1
    assert "model.safetensors" in told(said.stdout), said.stdout
    assert "Traceback" not in said.stdout
    weights.write_bytes(whole)
    os.utime(weights, (when, when))
    assert project.snakemake(str(adapter.relative_to(project.folder))).returncode == 0
    assert adapter.read_bytes() == before


@pytest.mark.slow
def test_a_clock_that_went_back_makes_nothing_run_for_ever(finished: Project, tmp_path: Path) -> None:
    project = finished.twin(tmp_path / "project")
    later = time.time() + 3 * 86400
    for folder in ("results", "tiny-base", "rows.jsonl"):
        top = project.folder / folder
        for path in [top, *top.rglob("*")] if top.is_dir() else [top]:
            os.utime(path, (later, later))
    assert "Nothing to be done" in project.snakemake().stdout
    for lost in ("model/tiny-q8_0.gguf", "train/main/adapters.safetensors"):
        (project.folder / "results/tiny" / lost).unlink()
        said = project.snakemake()
        assert said.returncode == 0, said.stdout
        assert "Nothing to be done" in project.snakemake().stdout
    assert project.different(finished) == []


@pytest.mark.slow
def test_a_full_disk_at_any_step_is_named_and_the_next_run_goes_on(finished: Project, disk: Path) -> None:
    project = tiny(disk / "project")
    said = faults.at_every_step(project, lambda _: faults.full(disk))
    for step, words in said.items():
        assert "Traceback" not in words, (step, words)
        ended_well = "(100%) done" in words or f"(Rule: {step.partition('-')[0]})" in words
        assert ended_well or "disk is full" in words or "No space left" in told(words) or "of disk" in words, words
    assert len(said) >= 30
    assert project.different(finished) == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="only Linux limits another process")
def test_a_lack_of_memory_at_any_step_is_named_and_the_next_run_goes_on(finished: Project, tmp_path: Path) -> None:
    project = tiny(tmp_path / "project")
    said = faults.at_every_step(project, faults.little_memory)
    for step, words in said.items():
        failed = "Error in rule" in words
        assert not failed or "not enough memory" in words or "was ended by SIG" in words, (step, words)
    assert project.different(finished) == []
