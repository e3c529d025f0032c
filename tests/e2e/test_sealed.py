"""A sealed run scores its test rows once; training again is refused at the test rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from project_copy import Project

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_sealed_split_is_opened_once_and_the_report_says_when(finished: Project, tmp_path: Path) -> None:
    project = finished.twin(tmp_path / "project")
    project.replace("tiny.yaml", "  max_length: 64", "  max_length: 64\n  split: {sealed: true}")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    run = project.folder / "results/tiny"
    use = json.loads((run / "run.json").read_text())["test_split"]
    assert use["sealed"] is True
    (seal,) = (project.folder / "results/.seals").glob("*.json")
    opened_at = json.loads(seal.read_text())["opened_at"]
    assert f"sealed until {opened_at}" in (run / "report/index.html").read_text()
    assert opened_at not in (run / "report/report.json").read_text()

    project.replace("tiny.yaml", "  max_steps: 12", "  max_steps: 13")
    again = project.snakemake()
    assert again.returncode == 1
    assert "test rows are sealed, and were opened for another model: run tiny" in again.stdout

    project.replace("tiny.yaml", "sealed: true", "sealed: false")
    unsealed = project.snakemake()
    assert unsealed.returncode == 0, unsealed.stdout
    assert "These test rows were sealed, and opened by run" in (run / "report/index.html").read_text()
