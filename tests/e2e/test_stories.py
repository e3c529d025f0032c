"""A real pre-trained model on real rows, to a scored GGUF; needs the shared models and data beside the checkout."""

import json
from pathlib import Path

import pytest
from projects import ROOT, SHARED, Project

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not (SHARED / "models/stories260K").is_dir(), reason="../shared/models/stories260K is not here"),
]


def run(name: str, folder: Path) -> Path:
    project = Project.copied(folder / "project")
    (folder / "shared").symlink_to(SHARED)
    project.write("stories.yaml", (ROOT / "tests/configs" / f"{name}.yaml").read_text())
    project.configuration = "stories.yaml"
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    return project.folder / "results" / name.replace("_", "-")


def value(results: Path, artefact: str, metric: str) -> float:
    return json.loads((results / "evaluation" / artefact / "scores.json").read_text())["metrics"][metric]["value"]


def test_questions_and_answers_end_in_a_scored_gguf_that_has_learned(tmp_path: Path) -> None:
    results = run("stories_gsm8k", tmp_path)
    assert (results / "report/index.html").stat().st_size > 10_000
    base, adapter, gguf = (value(results, one, "perplexity") for one in ("base", "adapter", "gguf-q8_0"))
    assert adapter < base / 2
    assert gguf == pytest.approx(adapter, rel=0.02)


@pytest.mark.slow
def test_text_rows_keep_the_splits_they_bring(tmp_path: Path) -> None:
    results = run("stories_wikisql", tmp_path)
    counts = {split: len((results / "data" / f"{split}.jsonl").read_text().splitlines()) for split in ("train", "test")}
    assert counts["train"] > 900
    assert counts["test"] > 90
    assert value(results, "gguf-q8_0", "perplexity") < value(results, "base", "perplexity")
