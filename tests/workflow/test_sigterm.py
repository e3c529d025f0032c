"""SIGTERM to the Snakemake process alone stops a running training, which leaves a checkpoint."""

import shutil
import signal
from pathlib import Path

import pytest
from project_copy import Project
from pty_session import Terminal

STEPS = 100_000  # far more than anyone waits for


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """The data are those of the finished run."""
    project = finished.twin(tmp_path / "project")
    shutil.rmtree(project.folder / "results/tiny/train")
    project.replace("tiny.yaml", "max_steps: 12", f"max_steps: {STEPS}")
    return project


def test_sigterm_to_snakemake_stops_the_training_with_a_checkpoint(project: Project) -> None:
    terminal = Terminal(project, "train")
    folder = project.folder / "results/tiny/train/main/checkpoints"
    try:
        assert terminal.until(lambda: list(folder.glob("*/checkpoint-*.json"))), terminal.text
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.ended(patience=60) == 1, terminal.text
        assert not terminal.jobs()
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
        terminal.close()
    assert "the training was stopped after" in terminal.text
    assert "a checkpoint is saved" in terminal.text
    assert "CalledProcessError" not in terminal.text
    assert list(folder.glob("*/checkpoint-*.json")), sorted(folder.rglob("*"))
    assert not (project.folder / "results/tiny/train/main/adapters.safetensors").exists()
