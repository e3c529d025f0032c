"""A signal ends a step in order where that is quick, and its process in any case."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STEP = """
import sys, time
from snaketune.runtime import step, stopping
with step.running(sys.argv[1]):
    {work}
"""
WORK = {
    "that waits": "print('begun', flush=True); time.sleep(300)",
    "in one call of MLX": (
        "import mlx.core as mx; a = mx.ones((1500, 1500)); a = [a := a @ a * 1e-4 for _ in range(20000)][-1]; "
        "print('begun', flush=True); mx.eval(a)"
    ),
    "in one call of numpy": (
        "import numpy as np; a = np.ones((6000, 6000)); print('begun', flush=True); np.linalg.svd(a)"
    ),
    "that catches what it can": (
        "print('begun', flush=True)\n    while True:\n        try: time.sleep(300)\n        except BaseException: pass"
    ),
}
COMMAND = "snakemake pilot --configfile köchin.yaml"


def run_and_stop(work: str, folder: Path, number: signal.Signals) -> tuple[int, float, str]:
    """The exit code of a step that gets a signal, the seconds until it ended, and what it said."""
    scripts = Path(__file__).parents[3] / "scripts"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    step = subprocess.Popen(
        [sys.executable, "-c", STEP.format(work=work), folder / "generate_answers.log"],
        env=os.environ | threads | {"PYTHONPATH": str(scripts), "SNAKETUNE_COMMAND": COMMAND, "SNAKETUNE_DISPLAY": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert step.stdout
    assert step.stdout.readline() == "begun\n"
    time.sleep(0.3)
    began = time.monotonic()
    step.send_signal(number)
    said, _ = step.communicate(timeout=100)
    return step.returncode, time.monotonic() - began, said


@pytest.mark.parametrize("kind", WORK)
def test_ctrl_c_ends_a_step(kind: str, tmp_path: Path) -> None:
    code, seconds, said = run_and_stop(WORK[kind], tmp_path, signal.SIGINT)
    assert code == 130
    assert seconds < 6  # two, and what a busy machine takes
    assert said == (
        "snaketune: generate_answers was stopped; what other steps have finished is kept. "
        f"Run `{COMMAND}` again to go on.\n"
    )


def test_sigterm_ends_a_step_in_the_same_way(tmp_path: Path) -> None:
    code, _, said = run_and_stop(WORK["that waits"], tmp_path, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert "generate_answers was stopped" in said


def test_what_is_kept_is_said(tmp_path: Path) -> None:
    work = f"stopping.keep('the checkpoint of step 7 is kept'); {WORK['that waits']}"
    assert "was stopped; the checkpoint of step 7 is kept." in run_and_stop(work, tmp_path, signal.SIGINT)[2]


def test_what_is_being_finished_is_not_cut_off(tmp_path: Path) -> None:
    written = tmp_path / "checkpoint"
    work = f"""import signal; signal.signal(signal.SIGINT, lambda *_: None)  # as a training defers it
    with stopping.finishing():
        print('begun', flush=True)
        end = time.monotonic() + 3
        while time.monotonic() < end: time.sleep(0.1)
        open({str(written)!r}, 'w').close()
    time.sleep(300)"""
    code, seconds, _ = run_and_stop(work, tmp_path, signal.SIGINT)
    assert code == 130
    assert seconds > 2
    assert written.exists()
