"""The whole chain on a tiny random base: the same bytes twice, and nothing lost on the way."""

import json
from pathlib import Path

import pytest
from project_copy import Project, tiny

pytestmark = pytest.mark.e2e
PROMPT = "method: prompt\n  num_virtual_tokens: 4\n  learning_rate: 5e-2"


def test_a_run_accounts_for_every_row_and_leaves_no_file_that_nobody_wanted(finished: Project) -> None:
    folder = finished.folder / "results/tiny"
    assert not (folder / "model/tiny-f16.gguf").exists()  # on the way to q8_0, and not wanted itself
    report = json.loads((folder / "data/report.json").read_text())
    assert report["read"] == 60
    parts = ("kept", "rejected", "duplicates", "near_duplicates")
    assert report["read"] == sum(report[part] for part in parts)


def test_the_chain_ends_in_its_report_with_the_torch_engine(finished: Project, tmp_path: Path) -> None:
    """By default so small a base is MLX's; the data are those of the finished run."""
    project = finished.twin(tmp_path / "torch")
    project.replace("tiny.yaml", "run: tiny\n", "run: tiny\nengine: torch\n")
    project.replace("tiny.yaml", "evaluate: {", "evaluate: {models: [base, adapter, gguf], ")
    done = project.snakemake(OMP_WAIT_POLICY="PASSIVE")
    assert done.returncode == 0, done.stdout
    folder = project.folder / "results/tiny"
    report = json.loads((folder / "report/report.json").read_text())
    assert report["plan"]["engine"] == {"name": "torch", "reason": "engine: torch is set"}
    assert json.loads((folder / "model/fidelity.json").read_text())["passed"]
    before, after = (
        json.loads((folder / f"evaluation/{name}/scores.json").read_text()) for name in ("base", "adapter")
    )
    assert after["metrics"]["perplexity"]["value"] < before["metrics"]["perplexity"]["value"]


def test_prompt_tuning_is_deployed_as_tokens_that_the_chat_template_writes(finished: Project, tmp_path: Path) -> None:
    """The base is measured without them, every product with them, and llama.cpp answers as the trained model does."""
    project = finished.twin(tmp_path / "prompt")
    project.replace("tiny.yaml", "rank: 4\n  alpha: 8\n  learning_rate: 1e-2", PROMPT)
    project.replace("tiny.yaml", "max_steps: 12", "max_steps: 60")
    project.replace("tiny.yaml", "gguf: [q8_0]", "gguf: [q8_0], mlx: [8bit-g32]")
    project.replace("tiny.yaml", "evaluate: {", "evaluate: {models: [base, adapter, fused, gguf, mlx], ")
    done = project.snakemake(OMP_WAIT_POLICY="PASSIVE")
    assert done.returncode == 0, done.stdout
    folder = project.folder / "results/tiny"
    summary = json.loads((folder / "train/main/summary.json").read_text())
    assert summary["best_validation_loss"] < summary["base_validation_loss"]
    fidelity = json.loads((folder / "model/fidelity.json").read_text())
    assert fidelity["passed"]
    assert fidelity["variants"]["gguf-q8_0"]["tokens"]["differences"] == 0
    assert fidelity["variants"]["gguf-q8_0"]["modelfile"] == 0
    scores = {
        name: json.loads((folder / f"evaluation/{name}/scores.json").read_text())["metrics"]["perplexity"]["value"]
        for name in ("base", "adapter", "fused", "gguf-q8_0", "mlx-8bit-g32")
    }
    assert all(scores[name] < 0.9 * scores["base"] for name in scores if name != "base"), scores
    answers = {
        name: [json.loads(line)["answer"] for line in (folder / f"evaluation/{name}/predictions.jsonl").open()]
        for name in ("base", "adapter", "gguf-q8_0")
    }
    assert answers["gguf-q8_0"] == answers["adapter"]
    assert answers["base"] != answers["adapter"]
    assert "<|virtual_3|>" in (folder / "model/Modelfile").read_text()
    assert "prompt tuning" in (folder / "model/README.md").read_text()


@pytest.mark.slow
def test_a_run_in_another_place_gives_the_same_bytes(finished: Project, tmp_path: Path) -> None:
    """As in test_crashes.py, where every test run sees it of a run that was killed four times."""
    other = tiny(tmp_path / "another place")
    done = other.snakemake()
    assert done.returncode == 0, done.stdout
    assert len(other.products()) > 50
    assert other.different(finished) == []
