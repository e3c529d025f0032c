"""The first Ctrl-C ends the work at hand within two seconds, also where a library computes for minutes in one call.

In each stage: exit code 130, no traceback, what was kept and the command that goes on; typed again, that command ends
in the same bytes as a run that was never stopped.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from project_copy import ROOT, Project, tiny
from pty_session import Terminal, processor_share

SECONDS = 2.0  # on a processor of its own
SMALLEST_SHARE = 0.2  # of a processor that is allowed for: ten seconds on the busiest machine

# calls that compute for minutes, as those of a large model and of many rows do
MLX = """
import mlx.core as slow_mx
open("slowed", "w").close()
product = slow_mx.ones((1500, 1500))
for _ in range(20_000):
    product = product @ product * 1e-4
slow_mx.eval(product)
"""
NUMPY = """
import numpy as slow_np
open("slowed", "w").close()
slow_np.linalg.svd(slow_np.ones((8000, 8000)))
"""
RUNNING = "with step.running("
TRAINER = "scripts/snaketune/train/trainer.py"


@dataclass(frozen=True)
class Slowed:
    """Work that is slowed down: what it makes, by which rule, and after which line of a file, if a condition holds."""

    product: str
    rule: str
    file: str = ""
    after: str = RUNNING
    condition: str = ""
    call: str = MLX
    kept: str = "what other steps have finished is kept"


SLOWED = {
    "data": Slowed("data/records.jsonl", "validate_rows", call=NUMPY),
    "tokenizing": Slowed("data/tokens/*/train.safetensors", "tokenize_rows", call=NUMPY),
    "training": Slowed(
        "train/main/adapters.safetensors",
        "train_adapter",
        file=TRAINER,
        after="self.callback.on_step_begin(step)",
        condition='"train/main" in str(self.checkpoints.folder) and step == 6',
        kept="the checkpoint of step 4 is kept",
    ),
    "validation": Slowed(
        "train/main/adapters.safetensors",
        "train_adapter",
        file=TRAINER,
        after="self._stop_between_batches()",
        condition='"train/main" in str(self.checkpoints.folder) and self.state.step == 8',
        kept="the checkpoint of step",  # 8 or, where writing one takes longer than four tiny steps are worth, 4
    ),
    "fusing": Slowed("model/fused.json", "fuse_adapter"),
    "conversion": Slowed(
        "model/tiny-f16.gguf",
        "convert_gguf",
        file="scripts/snaketune/package/converter_process.py",
        after="load_transformers_without_torch()",
        call=NUMPY,
    ),
    "quantization": Slowed("model/tiny-q8_0.gguf", "quantize_gguf"),
    "fidelity": Slowed("model/fidelity.json", "check_fidelity"),
    "answers": Slowed(
        "evaluation/base/predictions.jsonl",
        "generate_answers",
        file="scripts/snaketune/evaluate/predict.py",
        after="self._keep()",
        kept="answers and scores so far are kept",
    ),
    "report": Slowed("report/index.html", "write_report", call=NUMPY),
}
IN_THE_FAST_HALF = ("answers", "report")  # the trainings run the pilot too, whose code is the same


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    return finished.twin(tmp_path / "project")


def slow_down(path: Path, slowed: Slowed) -> str:
    """Put the call after its line; returns the file's text as it was."""
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    place = [number for number, line in enumerate(lines) if slowed.after in line][-1]  # a definition stands above
    next_line = next(line for line in lines[place + 1 :] if line.strip())
    margin = next_line[: len(next_line) - len(next_line.lstrip())]
    call = slowed.call.strip().splitlines()
    if slowed.condition:
        call = [f"if {slowed.condition}:", *(f"    {line}" for line in call)]
    lines[place + 1 : place + 1] = [f"{margin}{line}\n" for line in call]
    path.write_text("".join(lines))
    return text


def type_ctrl_c(terminal: Terminal) -> None:
    """Type Ctrl-C, and hold Snakemake to its two seconds of a processor: a busy machine gives less than one."""
    share = processor_share()
    began = time.monotonic()
    os.write(terminal.ours, b"\x03")
    code = terminal.ended(patience=60)
    took = time.monotonic() - began
    share = min(share, processor_share())
    print(f"Ctrl-C took {took:.2f} s, with {share:.2f} of a processor")  # pytest shows it where a test fails, or by -rP
    assert code == 128 + signal.SIGINT, terminal.text
    assert took < SECONDS / max(share, SMALLEST_SHARE), terminal.text


def go_on(said: str, project: Project) -> None:
    """Type the command that the last line names."""
    command = re.fullmatch(r"To go on: snakemake (.+ --configfile tiny\.yaml)", said.rstrip().splitlines()[-1])
    assert command, said
    done = Project(project.folder).snakemake(*shlex.split(command[1]))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[] if what in IN_THE_FAST_HALF else [pytest.mark.slow]) for what in SLOWED]
)
def test_ctrl_c_ends_slow_work_within_two_seconds_and_the_named_command_goes_on(
    what: str, project: Project, finished: Project
) -> None:
    slowed = SLOWED[what]
    results = project.folder / "results/tiny"
    [product] = results.glob(slowed.product) if "*" in slowed.product else [results / slowed.product]
    path = project.folder / (slowed.file or f"scripts/{slowed.rule}.py")
    before = slow_down(path, slowed)
    allowed = [slowed.rule, "convert_gguf"]  # its temporary file is needed again by some
    target = product.relative_to(project.folder).as_posix()
    terminal = Terminal(project, target, "-R", slowed.rule, "--allowed-rules", *allowed)
    try:
        assert terminal.until((project.folder / "slowed").exists), terminal.text
        type_ctrl_c(terminal)
        assert not terminal.jobs()
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
        terminal.close()
    said = terminal.text
    assert "Traceback" not in said, said
    assert slowed.kept in said, said
    for untrue in ("failed", "ollama", "verdict"):
        assert untrue not in said, said
    path.write_text(before)
    go_on(said, project)
    assert product.exists()
    made_besides = {"model/tiny-f16.gguf"} if slowed.rule == "convert_gguf" else set()  # asked for, it is not removed
    assert set(project.different(finished)) == made_besides


@pytest.mark.parametrize("seconds", [0.2, 0.7, 1.2])
def test_ctrl_c_during_the_start_ends_it_without_a_traceback(seconds: float, tmp_path: Path) -> None:
    """At a moment of the first second or so; some machines are in the first steps by then."""
    project = tiny(tmp_path / "project")
    terminal = Terminal(project)
    try:
        time.sleep(seconds)
        type_ctrl_c(terminal)
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
        terminal.close()
    assert "Traceback" not in terminal.text, terminal.text
    assert re.search("stopped before any step ran|To go on: snakemake --configfile tiny.yaml", terminal.text)
    data = project.folder / "results" / "tiny" / "data"  # of one step, which ended or left nothing
    assert (data / "records.jsonl").exists() == (data / "report.json").exists()


AFTER_THE_END = """
import sys, threading, time
from pathlib import Path
from snakemake_patches import hooks
hooks.stop_steps_on_signals(Path(sys.argv[1]))
threading.Thread(target=time.sleep, args=(3,)).start()
print("the end", flush=True)
"""


def test_ctrl_c_after_the_end_of_a_run_shows_no_traceback_and_changes_no_exit_code(tmp_path: Path) -> None:
    ended = subprocess.Popen(
        [sys.executable, "-c", AFTER_THE_END, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{ROOT / 'rules'}"},
    )
    assert ended.stdout is not None
    assert ended.stdout.readline() == "the end\n"
    time.sleep(0.5)  # Python waits for the thread now
    ended.send_signal(signal.SIGINT)
    _, said = ended.communicate(timeout=60)
    assert (ended.returncode, said) == (0, "")
