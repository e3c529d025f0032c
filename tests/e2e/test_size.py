"""Models of real size: what each step of packaging holds in memory and leaves on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import shaped_models
from project_copy import ROOT
from real_shapes import SHAPES, Shape
from snaketune.config.sections import TrainConfig, section
from snaketune.plan import architecture, resources

STAGE = ROOT / "benchmarks" / "size" / "one_stage.py"
BOUNDS = {"fetch": 0.2e9, "fuse": 1.3e9, "convert": 2.9e9, "quantize": 3.0e9}
"""Peak resident bytes of each stage at 1.24 billion weights, the interpreter included (docs/scale.md)."""


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
