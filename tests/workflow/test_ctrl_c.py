"""The first Ctrl-C ends the work at hand within two seconds, also where a model computes for minutes in one call."""

import os
import signal
import time
from pathlib import Path

import pytest
from project_copy import Project
from pty_session import Terminal

SECONDS = 2.0
FOR_OTHERS = 4.0  # seconds more, on a machine that runs other things beside the tests

# one call of MLX that computes for minutes, as a large model does
SLOW = """
import mlx.core as slow_mx
open("slowed", "w").close()
product = slow_mx.ones((1500, 1500))
for _ in range(20_000):
    product = product @ product * 1e-4
slow_mx.eval(product)
"""
FULL = '"train/main" in str(self.checkpoints.folder)'  # and not in the pilot
RUNNING = "with step.running("
STEPS = {
    "generate_answers": "evaluation/base/predictions.jsonl",
    "check_fidelity": "model/fidelity.json",
    "convert_gguf": "model/tiny-f16.gguf",
    "quantize_gguf": "model/tiny-q8_0.gguf",
    "fuse_adapter": "model/fused.json",
}


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    return finished.twin(tmp_path / "project")


def slow_down(project: Project, file: str, after: str, condition: str = "") -> None:
    """Compute for minutes after the one line of a file that holds some text, where a condition is true."""
    path = project.folder / file
    lines = path.read_text().splitlines(keepends=True)
    [place] = [number for number, line in enumerate(lines) if after in line]
    next_line = next(line for line in lines[place + 1 :] if line.strip())
    margin = next_line[: len(next_line) - len(next_line.lstrip())]
    slow = SLOW.strip().splitlines()
    slow = [f"if {condition}:", *(f"    {line}" for line in slow)] if condition else slow
    lines[place + 1 : place + 1] = [f"{margin}{line}\n" for line in slow]
    path.write_text("".join(lines))


def stopped(project: Project, rule: str, file: str) -> str:
    """Make a file by a rule alone, type Ctrl-C while it computes, and return what was said."""
    allowed = [rule, "convert_gguf"]  # its temporary file is needed again by some
    terminal = Terminal(project, f"results/tiny/{file}", "-R", rule, "--allowed-rules", *allowed)
    try:
        assert terminal.until((project.folder / "slowed").exists), terminal.text
        time.sleep(0.5)  # until it computes
        began = time.monotonic()
        os.write(terminal.ours, b"\x03")
        assert terminal.ended(patience=60) == 128 + signal.SIGINT, terminal.text
        took = time.monotonic() - began
        assert not terminal.jobs()
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
        terminal.close()
    assert took < SECONDS + FOR_OTHERS, terminal.text
    assert "Traceback" not in terminal.text, terminal.text
    assert "--configfile tiny.yaml" in terminal.text
    return terminal.text


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, marks=[pytest.mark.slow] if rule != "generate_answers" else []) for rule in STEPS]
)
def test_ctrl_c_ends_a_step_that_computes_for_minutes(rule: str, project: Project) -> None:
    slow_down(project, f"scripts/{rule}.py", RUNNING)
    assert f"{rule}" in stopped(project, rule, STEPS[rule])


@pytest.mark.slow
def test_ctrl_c_in_a_slow_training_step_keeps_the_last_checkpoint(project: Project) -> None:
    slow_down(project, "scripts/snaketune/train/trainer.py", "self.callback.on_step_begin(step)", FULL)
    said = stopped(project, "train_adapter", "train/main/adapters.safetensors")
    assert "the checkpoint of step 0 is kept" in said
    folder = project.folder / "results/tiny/train/main/checkpoints"
    assert list(folder.glob("*/checkpoint-00000000.json")), sorted(folder.rglob("*"))


@pytest.mark.slow
def test_ctrl_c_in_a_slow_validation_loses_no_step(project: Project) -> None:
    slow_down(project, "scripts/snaketune/train/trainer.py", "self._stop_between_batches()", FULL)
    assert "was stopped" in stopped(project, "train_adapter", "train/main/adapters.safetensors")
