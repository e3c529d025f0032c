"""The walks of docs/architecture.md are those that a value takes, and no longer than they were made."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import families
import msgspec
import numpy as np
import pytest
import tiny_models
import walks
from run_copies import write_report
from snaketune.config import schema, sections
from snaketune.config.experiments import expand
from snaketune.contracts import evaluate as contracts
from snaketune.contracts.data import SPLITS
from snaketune.contracts.train import AdapterConfig, LoraParameters, TrainingJob, TrainingOutputs
from snaketune.data.deduplication import RowKeys
from snaketune.data.readers.raw_row import RawRow
from snaketune.data.splits import SplitFields
from snaketune.engines import get_trainer
from snaketune.engines.interface import Completion, GenerationRequest, LoglikelihoodRequest
from snaketune.evaluate import compare, predict, score, step_config
from snaketune.evaluate.requests import EvalRequest
from snaketune.evaluate.variants import ModelVariant
from snaketune.files import write_json, write_jsonl
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.tokenize import FilterResult, TokenizeConfig, tokenize_splits
from snaketune.train.batches import Batch
from unit.data import data_steps

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
LONGEST = {"A row": 16, "`train.rank`": 15, "A prediction": 13}
MARK = "followed"  # stands in each text of the row that is followed
ROW = (RawRow, RowKeys, SplitFields, Rendered, FilterResult, Batch)
PREDICTION = (EvalRequest, GenerationRequest, LoglikelihoodRequest, Completion, contracts.Prediction)
PREDICTION += (contracts.Score, contracts.SetScores, contracts.MetricComparison, contracts.PairComparison)
RANK = (sections.TrainConfig, TrainingJob, LoraParameters, AdapterConfig)
FOR_OTHER_KEYS = {"train/batches.py", "train/checkpoints.py", "train/tracking.py", "engines/mlx/optimizer.py"}
BESIDE = {"evaluate/thresholds.py", "report/answers.py", "report/view_models.py"}  # they take it from its way


def stops(walk: str) -> dict[str, list[str]]:
    """The files of a documented walk, and what the table names in each."""
    (section,) = re.findall(rf"### {re.escape(walk)}: .*?\n\n(\|.*?)\n\n", ARCHITECTURE + "\n\n", re.DOTALL)
    found: dict[str, list[str]] = {}
    for line in section.splitlines()[2:]:
        for cell in line.split("|")[2].split(", "):
            file, *names = re.findall(r"`([^`]+)`", cell)
            found.setdefault(file, []).extend(names)
    return found


def path_of(file: str) -> Path:
    return ROOT / file if file.startswith(("scripts/", "schemas/")) else walks.LIBRARY / file


def in_the_library(walk: str) -> set[str]:
    return {file for file in stops(walk) if not file.startswith(("scripts/", "schemas/"))}


@pytest.mark.parametrize("walk", LONGEST)
def test_walk_has_as_many_files_as_its_heading_says_and_no_more_than_before(walk: str) -> None:
    (stated,) = re.findall(rf"### {re.escape(walk)}: (\d+) files", ARCHITECTURE)
    assert len(stops(walk)) == int(stated) <= LONGEST[walk]


@pytest.mark.parametrize("walk", LONGEST)
def test_everything_that_a_walk_names_is_there(walk: str) -> None:
    for file, names in stops(walk).items():
        path = path_of(file)
        defined = set(_defined(ast.parse(path.read_bytes()))) if path.suffix == ".py" else set()
        assert set(names) <= defined, file


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


@pytest.mark.parametrize(
    "step",
    [
        "train_adapter",
        "train_pilot",
        "train_subset",
        "dry_run_pilot",
        "forecast_run",
        "write_card",
        "select_experiment",
    ],
)
def test_a_script_on_the_way_of_rank_looks_into_no_section(step: str) -> None:
    nodes = list(ast.walk(ast.parse((ROOT / f"scripts/{step}.py").read_bytes())))
    keys = {node.value for node in nodes if isinstance(node, ast.Constant)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not (keys | attributes) & set(sections.TrainConfig.__struct_fields__)
    assert "train" not in keys


def test_rank_passes_the_files_of_a_training_that_its_walk_names(tmp_path: Path) -> None:
    folder = tiny_models.TrainingFolder(tmp_path)
    with walks.following(lambda value: isinstance(value, RANK)) as passed:
        folder.train(max_steps=2)
    named = {file for file in in_the_library("`train.rank`") if file.startswith(("train/", "engines/"))}
    assert set(passed) - FOR_OTHER_KEYS == named
    assert set(passed) >= FOR_OTHER_KEYS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a tiny model."""
    folder = families.build(tmp_path_factory.mktemp("models") / "m", "qwen3")
    write_json(folder.with_name("m.json"), tiny_models.manifest_of(folder))
    return folder.with_name("m.json")


def conversation(number: int) -> dict[str, Any]:
    words = " ".join(["river", "mountain", "island", "forest"][(number * 7 + i) % 4] for i in range(3 + number % 5))
    question, answer = f"{MARK} {number}: what is {words}?", f"{MARK} the {words} of number {number}."
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def is_row(value: Any) -> bool:
    """Whether a value is a row: its text, a record of it, or what a token store gives of it."""
    if isinstance(value, str | bytes):
        return (MARK if isinstance(value, str) else MARK.encode()) in value
    if isinstance(value, np.ndarray):
        return value.dtype == np.int32 and value.ndim == 1 and 3 < len(value) < 100
    return isinstance(value, ROW)


def test_row_passes_the_files_that_its_walk_names(tmp_path: Path, base: Path) -> None:
    data = data_steps.settings(data_steps.write(tmp_path / "rows.jsonl", *map(conversation, range(30))))
    model = {"chat_template": None, "num_virtual_tokens": 0}
    tokens = {"model": model, "data": {"max_length": 128, "on_too_long": "drop"}}
    stores = {split: str(tmp_path / f"{split}.safetensors") for split in SPLITS}
    with walks.following(is_row) as passed:
        data_steps.validated(tmp_path, data)
        data_steps.divided(tmp_path, data)
        tokenize_splits(
            {split: str(tmp_path / f"{split}.jsonl") for split in SPLITS},
            base,
            msgspec.convert(tokens, TokenizeConfig),
            stores,
            tmp_path / "tokens.json",
        )
        get_trainer().train(
            TrainingJob(
                train_tokens=stores["train"],
                valid_tokens=stores["valid"],
                model=str(base),
                config=tiny_models.train_config(max_steps=2),
                dtype="float32",
                seed=1,
                outputs=TrainingOutputs.in_folder(tmp_path / "out"),
            )
        )
    # the sources give files, in which rows lie
    assert {*passed, "data/sources.py"} == in_the_library("A row")


def test_prediction_passes_the_files_that_its_walk_names(tmp_path: Path, base: Path) -> None:
    run, rows = tmp_path / "t", [conversation(number) | {"id": f"r{number}"} for number in range(8)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    adapter = families.adapt(Path(base).with_suffix(""), tmp_path / "adapter", rows=rows, updates=5)
    config = sections.load({"run": "t", "evaluate": {"max_new_tokens": 4, "generation": {"temperature": 1.0}}})
    write_json(run / "config.json", schema.complete({"run": "t"}))
    folders = {name: run / "evaluation" / name for name in ("base", "adapter")}
    predictions = [folder / "predictions.jsonl" for folder in folders.values()]
    scores = [folder / "scores.json" for folder in folders.values()]
    with walks.following(lambda value: isinstance(value, PREDICTION)) as passed:
        for name, path in zip(folders, predictions, strict=True):
            weights = adapter / "adapters.safetensors" if name == "adapter" else None
            predict.run(
                ModelVariant(name, model=base, adapter=weights),
                predict.PredictionInputs(rows=tmp_path / "rows.jsonl"),
                predict.PredictionOutputs(path),
                step_config.prediction_config(config, expand(config)["main"], name),
            )
        for path, scored in zip(predictions, scores, strict=True):
            score.run(predictions=path, scores=scored, config=step_config.scoring_config(config))
        compare.run(
            predictions=predictions,
            scores=scores,
            comparison=run / "evaluation/comparison.json",
            table=run / "evaluation/comparison.csv",
            config=step_config.comparison_config(config),
        )
        write_report(run)
    parts = {"tokens/chat_template.py", "engines/decoding.py", "evaluate/significance.py"}
    parts |= {"report/page.py"}  # which take ids, texts, numbers and the whole report
    assert set(passed) - BESIDE | parts == in_the_library("A prediction")
    assert set(passed) >= BESIDE
