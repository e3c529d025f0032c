"""The whole chain on a tiny random base: the same bytes twice, and nothing lost on the way."""

import json
from pathlib import Path

import pytest
from project_copy import tiny

pytestmark = pytest.mark.e2e
COMPARED = (
    "data/report.json",
    "plan.json",
    "pilot/summary.json",
    "train/main/adapters.safetensors",
    "train/main/metrics.jsonl",
    "train/main/summary.json",
    "model/tiny-q8_0.gguf",
    "model/Modelfile",
    "model/fidelity.json",
    "evaluation/comparison.json",
)


def test_two_runs_of_the_chain_give_the_same_bytes_and_every_row_is_accounted_for(tmp_path: Path) -> None:
    folders = []
    for name in ("one", "another place"):
        project = tiny(tmp_path / name)
        done = project.snakemake()
        assert done.returncode == 0, done.stdout
        folders.append(project.folder / "results/tiny")
    for file in COMPARED:
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file
    assert not (folders[0] / "model/tiny-f16.gguf").exists()  # a station on the way, nobody asked for it
    report = json.loads((folders[0] / "data/report.json").read_text())
    assert report["read"] == 60
    parts = ("kept", "rejected", "duplicates", "near_duplicates")
    assert report["read"] == sum(report[part] for part in parts)
