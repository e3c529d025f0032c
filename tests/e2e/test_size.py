"""Models of real size: what each step holds in memory and leaves on the disk, and what is packaged without training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import shaped_models
import sized_chain
from project_copy import ROOT, Project, tiny
from real_shapes import SHAPES, Shape
from snaketune import files
from snaketune.config.sections import TrainConfig, section
from snaketune.plan import architecture, resources

STAGE = ROOT / "benchmarks" / "size" / "one_stage.py"
BOUNDS = {
    "fetch": 0.2e9,
    "tokenize": 0.5e9,
    "fuse": 1.3e9,
    "convert": 2.4e9,
    "quantize_q8_0": 3.0e9,
    "quantize_q4_k_m": 3.0e9,
}
"""Peak resident bytes of each stage at 1.24 billion weights, the interpreter included (docs/scale.md)."""
LOADED = 8.5e9
"""Of a step that runs the model: its weights in float32, their mapped file while they are loaded, and a GB."""
STEP_BOUNDS = {
    "fetch_model": 0.2e9,
    "tokenize_rows": 0.5e9,
    "dry_run_pilot": LOADED,
    "train_pilot": LOADED,
    "decide_pilot": LOADED,
    "train_adapter": LOADED,
    "fuse_adapter": 1.3e9,
    "convert_gguf": 2.4e9,
    "quantize_gguf": 3.0e9,
    "check_fidelity": LOADED,
    "generate_answers": LOADED,
    "score_answers": 0.5e9,
    "compare_scores": 0.5e9,
    "write_report": 1.0e9,
}
"""The same of the chain's steps, with the engine that it chooses on this machine."""
HOURS = 3600.0


def run_stage(name: str, base: Path, folder: Path) -> dict[str, float]:
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, str(STAGE), name, str(base), str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | alone)
    assert said.returncode == 0, said.stderr[-2000:]
    found: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return found


def check_disk(shape: Shape, folder: Path) -> None:
    """What was written must be what the plan counts, within a tenth."""
    model = architecture.read(shape.config)
    planned = resources.forecast_disk([(model, section(TrainConfig), False)], ["q8_0"], model)
    fused = sum(path.stat().st_size for path in (folder / "fused").glob("*.safetensors"))
    for size, stated in (
        (fused, planned.fused),
        ((folder / "size-f16.gguf").stat().st_size, planned.f16),
        ((folder / "size-q8_0.gguf").stat().st_size, planned.gguf),
    ):
        assert size == pytest.approx(stated, rel=0.1)


@pytest.mark.slow
def test_steps_of_a_billion_weights_stay_under_their_bounds_of_memory_and_disk(tmp_path: Path) -> None:
    shape = SHAPES["llama-3.2-1b"]
    base = shaped_models.make(shape, tmp_path / "base")
    run_stage("prepare", base, tmp_path)
    peaks = {name: run_stage(name, base, tmp_path)["peak_bytes"] for name in BOUNDS}
    assert {name: peak for name, peak in peaks.items() if peak > BOUNDS[name]} == {}
    check_disk(shape, tmp_path)


@pytest.mark.slow
def test_the_whole_chain_of_a_billion_weights_stays_under_its_bounds_of_memory_and_the_planned_disk(
    tmp_path: Path,
) -> None:
    project = sized_chain.project(tmp_path / "project", "llama-3.2-1b")
    run = project.folder / "results" / "size"
    with sized_chain.watching_disk(project.folder / "results") as sizes:
        done = project.snakemake("report", timeout=4 * HOURS)
    assert done.returncode == 0, done.stdout[-4000:]
    planned = files.read_json(run / "plan.json")["disk"]["total"]
    assert max(sizes) == pytest.approx(planned, rel=0.1)
    jobs = sized_chain.jobs(run)
    peaks = {
        rule: max(job["peak_bytes"] for name, job in jobs.items() if name.partition("-")[0] == rule)
        for rule in STEP_BOUNDS
        if any(name.partition("-")[0] == rule for name in jobs)
    }
    assert STEP_BOUNDS.keys() - peaks.keys() <= {"fetch_model"}  # its file lies beside the model
    assert {rule: peak for rule, peak in peaks.items() if peak > STEP_BOUNDS[rule]} == {}


def check_packaged_without_training(project: Project, run: Path, base: Path, config: str, *, refused: bool) -> None:
    """A run whose training does not fit is refused, planned for the machine that trains, and packaged here."""
    said = project.snakemake("plan", timeout=HOURS)
    assert (said.returncode != 0) == refused, said.stdout[-2000:]
    if refused:
        assert "training needs" in said.stdout
        project.replace(config, "train:\n", "train:\n  memory_limit: 80\n")
        said = project.snakemake("plan", timeout=HOURS)
        assert said.returncode == 0, said.stdout[-2000:]
    sized_chain.put_adapter(run, base, project.folder / "made")
    said = project.snakemake("package", "--allowed-rules", *sized_chain.rules_without_training(), timeout=4 * HOURS)
    assert said.returncode == 0, said.stdout[-4000:]
    assert not (run / "train").exists()
    assert files.read_json(run / "model" / "fidelity.json")["passed"]


@pytest.mark.slow
def test_a_run_whose_training_does_not_fit_is_packaged_with_an_adapter_from_elsewhere(tmp_path: Path) -> None:
    project = tiny(tmp_path / "project")
    project.replace("tiny.yaml", "train:\n", "train:\n  memory_limit: 0.0001\n")
    run = project.folder / "results" / "tiny"
    said = project.snakemake("plan")
    assert said.returncode == 1
    assert "training needs" in said.stdout
    project.replace("tiny.yaml", "  memory_limit: 0.0001\n", "  memory_limit: 80\n")
    check_packaged_without_training(project, run, project.folder / "tiny-base", "tiny.yaml", refused=False)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 4])
def test_eight_billion_weights_go_from_plan_through_package_on_24_gigabytes(bits: int | None, tmp_path: Path) -> None:
    project = sized_chain.project(tmp_path / "project", "llama-3.1-8b", bits=bits)
    project.replace("size.yaml", "gguf: [q8_0, q4_k_m]", "gguf: [q4_k_m]")
    run, base = project.folder / "results" / "size", project.folder / "base"
    check_packaged_without_training(project, run, base, "size.yaml", refused=bits is None)
