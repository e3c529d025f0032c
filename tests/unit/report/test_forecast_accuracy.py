"""The forecast of a stage is compared with all steps of that stage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from project_copy import ROOT
from snaketune.report.forecast_accuracy import STAGES, stage_seconds


def test_every_timed_step_of_packaging_is_compared_with_a_forecast() -> None:
    timed = re.findall(r'benchmarks\("(\w+)', (ROOT / "rules" / "package.smk").read_text(encoding="utf-8"))
    compared = {step for stage in ("package", "fidelity") for step in STAGES[stage][1]}
    assert set(timed) - compared == {"export_adapter"}  # not forecast: it copies what is small


def test_the_seconds_of_an_importance_matrix_and_of_its_types_are_those_of_packaging(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    for name, seconds in {"collect_imatrix": 2, "quantize_gguf_imatrix-q2_k": 3, "quantize_mlx-4bit": 4}.items():
        (tmp_path / "benchmarks" / f"{name}.tsv").write_text(f"s\n{seconds}\n")
    assert stage_seconds(tmp_path) == {"package": pytest.approx(9)}
