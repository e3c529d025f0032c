"""A real pre-trained model on real rows, to a scored GGUF; needs the shared models and data beside the checkout."""

import json
from pathlib import Path

import msgspec
import pytest
from project_copy import ROOT, Project
from snaketune.contracts.package import FusedManifest
from snaketune.engines import load_gguf, load_model
from snaketune.engines.interface import LoadOptions
from snaketune.files import read_json, read_jsonl
from snaketune.model.manifest import read_manifest
from snaketune.package import fidelity_probes, gguf_conversion
from snaketune.tokens.chat_template import Renderer
from tools import GSM8K_ROWS, SHARED, STORIES_MODEL, WIKISQL_ROWS

pytestmark = [
    pytest.mark.e2e,
    STORIES_MODEL.needed,
    GSM8K_ROWS.needed,
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


@pytest.fixture(scope="module")
def gsm8k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run("stories_gsm8k", tmp_path_factory.mktemp("gsm8k"))


def test_questions_and_answers_end_in_a_scored_gguf_that_has_learned(gsm8k: Path) -> None:
    results = gsm8k
    assert (results / "report/index.html").stat().st_size > 10_000
    base, adapter, gguf = (value(results, one, "perplexity") for one in ("base", "adapter", "gguf-q8_0"))
    assert adapter < base / 2
    assert gguf == pytest.approx(adapter, rel=0.02)


@pytest.mark.slow
def test_a_hundred_greedy_answers_of_the_f16_file_are_the_adapters_but_where_it_was_undecided(gsm8k: Path) -> None:
    """A 16-bit rounding lies between the two, and so weak a model is often torn between two words."""
    project = Project(gsm8k.parents[1], "stories.yaml")
    project.replace("stories.yaml", "{rows: 8, num_prompts: 4, max_new_tokens: 16}", "{rows: 100, num_prompts: 100}")
    done = project.snakemake("package")
    assert done.returncode == 0, done.stdout
    record = json.loads((gsm8k / "model/fidelity.json").read_text())
    f16 = record["variants"]["gguf-f16"]
    assert record["passed"]
    assert record["prompts"] == 100
    assert f16["greedy_as_adapter"] >= 90
    assert f16.get("divergence_margin", 0.0) < 0.02  # nats: where an answer parts, the adapter itself is undecided


@pytest.mark.slow
def test_in_32_bits_the_same_way_changes_none_of_a_hundred_answers(
    gsm8k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the answers that differ in 16 bits differ by rounding, and merging and converting lose nothing."""
    monkeypatch.chdir(gsm8k.parents[1])
    base = read_manifest(gsm8k / "model/base.json")
    fused = read_json(gsm8k / "model/fused.json", FusedManifest)
    renderer = Renderer(base.folder, "alpaca")
    rows = list(read_jsonl(gsm8k / "data/test.jsonl"))
    limits = fidelity_probes.ProbeLimits(rows=100, prompts=100, max_new_tokens=32)
    probes = fidelity_probes.make_probes(renderer, rows, limits, vocab_size=len(renderer.tokenizer))
    adapted = load_model(base.folder, LoadOptions(exact=True, adapter=gsm8k / "model/adapter"))
    expected = fidelity_probes.run_probes(adapted, probes).completions
    adapter = gsm8k / "model/adapter/adapters.safetensors"
    source = gguf_conversion.merge_source(gsm8k / "model/fused.json", gsm8k / "model/base.json", adapter)
    source = msgspec.structs.replace(source, outtype="f32")
    gguf_conversion.convert(fused.folder, tmp_path / "merged.gguf", name="merged", merge=source)
    merged = load_gguf(tmp_path / "merged.gguf", LoadOptions(context_length=512, exact=True))
    assert fidelity_probes.run_probes(merged, probes).completions == expected
    assert len(expected) == 100


@WIKISQL_ROWS.needed
@pytest.mark.slow
def test_text_rows_keep_the_splits_they_bring(tmp_path: Path) -> None:
    results = run("stories_wikisql", tmp_path)
    counts = {split: len((results / "data" / f"{split}.jsonl").read_text().splitlines()) for split in ("train", "test")}
    assert counts["train"] > 900
    assert counts["test"] > 90
    assert value(results, "gguf-q8_0", "perplexity") < value(results, "base", "perplexity")
