"""The definition of a run: experiments, bases and file names, as the rules read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from snaketune.config import schema as configuration
from snaketune.config.sections import TrainConfig
from snaketune.errors import UserError
from snaketune.run_definition import (
    RunDefinition,
    config_manifest,
    define_run,
    manifest,
    template_config,
    template_file,
    tracked_train,
    untracked_train,
)

QUANTIZED = {"bits": 4, "group_size": 64, "mode": "affine"}


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')


def defined(**keys: Any) -> RunDefinition:
    return define_run(
        configuration.complete({"run": "jessy-v1", "data": {"sources": [{"path": "rows.jsonl"}]}, **keys})
    )


def test_run_without_experiments_has_one_called_main() -> None:
    run = defined()
    assert list(run.experiments) == ["main"]
    assert run.pilot_experiment.name == "main"
    assert run.folder == "results/jessy-v1"
    assert run.sources == ("rows.jsonl",)
    assert run.gguf("q8_0") == "results/jessy-v1/model/jessy-v1-q8_0.gguf"


def test_experiments_keep_the_order_of_the_configuration_and_the_first_is_piloted() -> None:
    run = defined(experiments={"small": {"rank": 4}, "big": {"rank": 32}}, grid={"rank": [16, 8]})
    assert list(run.experiments) == ["small", "big", "rank-16", "rank-8"]
    assert run.pilot_experiment.name == "small"
    assert [one.train.rank for one in run.experiments.values()] == [4, 32, 16, 8]
    assert run.experiment_files("summary.json")[1] == "results/jessy-v1/train/big/summary.json"


def test_files_of_a_candidate_lie_in_its_own_folder() -> None:
    run = defined(experiments={"z": {"rank": 4}, "a": {"rank": 32, "base": "demo"}})
    for name in run.experiments:
        files = run.candidate_files(name)
        assert Path(files["adapter"]).parent.name == Path(files["summary"]).parent.name == name
        assert "scores" not in files
    scored = defined(select={"metric": "exact_match"})
    assert scored.candidate_files("main")["scores"] == "results/jessy-v1/train/main/validation/scores.json"


def test_tracked_and_untracked_settings_together_are_all_settings_of_the_training() -> None:
    one = defined().pilot_experiment
    assert msgspec.convert(tracked_train(one) | untracked_train(one), TrainConfig) == one.train
    assert not tracked_train(one).keys() & untracked_train(one).keys()
    assert "memory_limit" in untracked_train(one)
    assert "rank" in tracked_train(one)


def test_one_base_with_two_templates_is_one_model_and_two_tokenizations() -> None:
    run = defined(experiments={"b": {"chat_template": "chatml"}, "a": {"chat_template": "alpaca"}, "c": {"rank": 3}})
    assert len(run.base_models) == 1
    assert len(run.tokenizations) == 3
    assert run.shared_base is None
    assert [one.model.chat_template for one in run.tokenizations.values()] == ["chatml", "alpaca", None]
    stores = [run.token_stores(one)["train"] for one in run.experiments.values()]
    assert len(set(stores)) == 3


def test_quantized_base_is_fetched_once_beside_the_plain_one() -> None:
    run = defined(model={"base": "org/name"}, experiments={"plain": {}, "four": {"quantize": QUANTIZED}})
    assert len(run.base_models) == 2
    assert list(run.unquantized_bases.values()) == [run.experiments["plain"].model]
    assert len(run.tokenizations) == 1
    four = run.experiments["four"].model
    assert manifest(four) != manifest(run.experiments["plain"].model)
    assert config_manifest(four) == config_manifest(run.experiments["plain"].model)


def test_experiments_that_read_one_base_alike_share_its_manifest() -> None:
    run = defined(experiments={"b": {"rank": 3}, "a": {"rank": 4}})
    assert run.shared_base == manifest(run.pilot_experiment.model)


def test_prompt_tuning_has_tokens_of_its_own_and_says_in_its_base_how_it_is_read() -> None:
    tuned = {"method": "prompt", "num_virtual_tokens": 8}
    run = defined(experiments={"lora": {}, "dora": {"method": "dora"}, "prompt": tuned})
    assert len(run.base_models) == 1
    assert [template_config(one)["num_virtual_tokens"] for one in run.tokenizations.values()] == [0, 8]
    assert run.token_stores(run.experiments["lora"]) == run.token_stores(run.experiments["dora"])
    assert run.token_stores(run.experiments["lora"]) != run.token_stores(run.experiments["prompt"])
    assert run.shared_base is None
    assert defined(train=tuned).shared_base is None
    assert not run.exports_adapter


def test_lm_eval_is_refused_before_the_training_where_every_experiment_is_prompt_tuning() -> None:
    tuned = {"method": "prompt"}
    with pytest.raises(UserError, match="lm-eval cannot compare"):
        defined(train=tuned, evaluate={"lm_eval_tasks": ["arc_easy"]})
    with pytest.raises(UserError, match="lm-eval cannot compare"):
        defined(train=tuned).check_lm_eval()
    defined(experiments={"lora": {}, "prompt": tuned}, evaluate={"lm_eval_tasks": ["arc_easy"]}).check_lm_eval()


def test_adapter_is_exported_only_where_all_experiments_train_lora() -> None:
    assert defined().exports_adapter
    assert not defined(package={"adapter": False}).exports_adapter
    assert not defined(experiments={"b": {"rank": 3}, "a": {"method": "dora"}}).exports_adapter


def test_files_of_a_local_base_are_named_with_and_without_weights(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (base / name).write_text("{}")
    run = defined(
        model={"base": "./base"}, experiments={"own": {}, "hub": {"base": "org/name"}, "demo": {"base": "demo"}}
    )
    own, hub, demo = run.unquantized_bases
    assert [Path(file).name for file in run.base_files(own, weights=False)] == ["config.json", "tokenizer.json"]
    assert [Path(file).name for file in run.base_files(own, weights=True)][-1] == "model.safetensors"
    assert run.base_files(hub, weights=True) == run.base_files(demo, weights=True) == []


def test_template_that_is_a_file_is_an_input_and_a_named_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages }}")
    run = defined(experiments={"z": {"chat_template": "mine.jinja"}, "a": {"chat_template": "alpaca"}, "m": {}})
    assert run.template_files == ["mine.jinja"]
    assert template_file(run.experiments["a"].model) == []


def test_variants_start_with_the_base_and_name_the_first_gguf_type() -> None:
    run = defined(package={"gguf": ["q4_k_m", "q8_0"]}, evaluate={"models": ["gguf", "adapter", "base"]})
    assert run.variants == ("base", "gguf-q4_k_m", "adapter")


@pytest.mark.parametrize(
    "keys",
    [
        {"data": {"sources": [{"path": "nowhere.jsonl"}]}},
        {"evaluate": {"similarity": "nowhere.gguf"}},
        {"evaluate": {"models": ["gguf-q2_k"]}},
        {"experiments": {"a": {"rnak": 4}}},
    ],
)
def test_mistake_that_the_configuration_shows_is_refused_before_anything_is_made(keys: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        defined(**keys)


def test_definition_can_be_written_as_json_for_the_params_of_a_rule() -> None:
    run = defined(experiments={"b": {"rank": 3}, "a": {"rank": 4}})
    listed = [
        {"experiment": one.name, "train": tracked_train(one), "model": one.model.base}
        for one in run.experiments.values()
    ]
    assert [one["experiment"] for one in json.loads(configuration.canonical(listed))] == ["b", "a"]


def shape(folder: Path, width: int) -> str:
    """A base's folder that holds no more than a config.json."""
    folder.mkdir()
    config = {"hidden_size": width, "num_hidden_layers": 16, "num_attention_heads": 8, "vocab_size": 32_000}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def test_steps_of_a_large_base_take_all_cores_and_those_of_a_small_one_what_threads_says(tmp_path: Path) -> None:
    small, large = shape(tmp_path / "small", 256), shape(tmp_path / "large", 2048)
    assert defined(model={"base": "demo"}).threads(8) == 1
    assert defined(model={"base": small}, threads=3).threads(8) == 3
    assert defined(model={"base": large}, threads=3).threads(8) == 8
    assert defined(model={"base": large}, threads=3).threads(None) == 3
    assert defined(model={"base": small}, experiments={"a": {}, "b": {"base": large}}).threads(8) == 8


def test_base_of_the_hub_is_large_until_its_configuration_says_otherwise(tmp_path: Path) -> None:
    run = defined(model={"base": "somebody/some-model"})
    assert run.threads(8) == 8
    (model,) = run.unquantized_bases.values()
    path = Path(config_manifest(model))
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"folder": shape(tmp_path / "fetched", 128)}), encoding="utf-8")
    assert run.threads(8) == 1
