"""A key from an earlier version or another tool is answered with ours; nothing is accepted under two names."""

import re
from pathlib import Path
from typing import Any

import pytest
from snaketune.config import experiments, foreign_keys, sections
from snaketune.config.schema_nodes import json_schema, key_paths, root
from snaketune.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


def message(**given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        experiments.expand(sections.load({"run": "a", **given}))
    return str(caught.value)


def known_paths() -> set[str]:
    return {path for paths in key_paths().values() for path in paths}


def test_every_name_leads_to_a_key_that_exists() -> None:
    assert {*foreign_keys.RENAMED.values(), *foreign_keys.FOREIGN.values()} <= known_paths()


def test_no_old_name_is_still_a_key() -> None:
    assert not set(foreign_keys.RENAMED) & known_paths()


def test_no_name_stands_for_two_keys() -> None:
    names = [name for names in foreign_keys.NAMES.values() for name in names.split()]
    assert sorted(names) == sorted(set(names))


def test_every_value_leads_to_one_that_the_key_allows() -> None:
    for path, values in foreign_keys.VALUES.items():
        section, key = path.split(".")
        enum = json_schema()["properties"][section]["properties"][key]["enum"]
        assert set(values.values()) <= set(enum)
        assert not set(values) & set(enum)


@pytest.mark.parametrize(("old", "new"), foreign_keys.RENAMED.items())
def test_a_key_of_an_earlier_version_is_answered_with_the_new_name(old: str, new: str) -> None:
    *path, key = old.split(".")
    value: Any = {key: 1}
    for section in reversed(path):
        value = {section: [value] if section == "sources" else value}
    assert f'did you mean "{new.removeprefix(".".join(path) + ".")}"?' in message(**value)


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ({"rank": 8}, "train.rank"),
        ({"max_length": 512}, "data.max_length"),
        ({"train": {"max_length": 512}}, "data.max_length"),
        ({"updates": 500}, "train.max_steps"),
        ({"template": "chatml"}, "model.chat_template"),
        ({"base_model": "some/model"}, "model.base"),
        ({"model_name_or_path": "some/model"}, "model.base"),
        ({"model": {"load_in_4bit": True}}, "quantize"),
        ({"train": {"lora_r": 8}}, "rank"),
        ({"train": {"lora_alpha": 16}}, "alpha"),
        ({"train": {"lora_dropout": 0.1}}, "dropout"),
        ({"train": {"lora_target_modules": []}}, "target_modules"),
        ({"train": {"num_train_epochs": 3}}, "epochs"),
        ({"num-train-epochs": 3}, "train.epochs"),
        ({"train": {"per_device_train_batch_size": 2}}, "batch_size"),
        ({"micro_batch_size": 2}, "train.batch_size"),
        ({"train": {"iters": 600}}, "max_steps"),
        ({"grad_checkpoint": True}, "train.gradient_checkpointing"),
        ({"train": {"lr_scheduler_type": "cosine"}}, "lr_scheduler"),
        ({"train": {"warmup_ratio": 0.03}}, "warmup_steps"),
        ({"train": {"sample_packing": True}}, "packing"),
        ({"train": {"mask_prompt": True}}, "train_on_prompts"),
        ({"sequence_len": 2048}, "data.max_length"),
        ({"cutoff_len": 2048}, "data.max_length"),
        ({"val_set_size": 0.05}, "data.split.valid"),
        ({"data": {"val_set_size": 0.05}}, "split.valid"),
        ({"data": {"sources": [{"ds_type": "json", "path": "a"}]}}, "format"),
        ({"LoRA_R": 8}, "train.rank"),
        ({"experiments": {"small": {"lora_r": 8}}}, "rank"),
        ({"grid": {"num_train_epochs": [1, 2]}}, "epochs"),
        ({"experiments": {"other": {"base_model": "some/model"}}}, "base"),
        ({"trian": {}}, "train"),
        ({"train": {"rnak": 8}}, "rank"),
        ({"learnin_rate": 1e-4}, "train.learning_rate"),
    ],
)
def test_a_foreign_or_misplaced_key_is_answered_with_ours(given: dict[str, Any], ours: str) -> None:
    assert f'did you mean "{ours}"?' in message(**given)


def test_a_key_of_several_sections_is_answered_with_all_of_them() -> None:
    assert 'did you mean "pilot.rows" or "package.fidelity.rows" or "evaluate.forgetting.rows"?' in message(rows=5)


def test_a_name_that_resembles_nothing_gets_no_suggestion() -> None:
    assert "did you mean" not in message(xyzzy=1)


def test_a_slip_that_is_as_near_to_several_keys_names_them_all() -> None:
    assert 'did you mean "eval_steps" or "max_steps"?' in message(train={"evax_steps": 5})


@pytest.mark.parametrize("path", ["", "data", "data.split", "evaluate", "evaluate.forgetting", "package", "train"])
def test_the_message_on_an_unknown_key_is_short_and_says_where_the_allowed_ones_are(path: str) -> None:
    wrong: dict[str, Any] = {"xyzzy": 1}
    node = root()
    for key in filter(None, path.split(".")):
        node = node.properties[key]
    for key in filter(None, reversed(path.split("."))):
        wrong = {key: wrong}
    said = message(**wrong)
    assert len(said) <= 200
    headings = re.findall("^## (.*)", (ROOT / "docs/configuration.md").read_text(encoding="utf-8"), re.M)
    if "Keys allowed here" in said:
        assert all(key in said for key in node.properties)
    elif path:
        assert said.endswith(f"docs/configuration.md has the keys that are allowed here, under {path.split('.')[0]}.")
        assert path.split(".")[0] in headings
    else:
        assert said.endswith("docs/configuration.md has the keys that are allowed here: each is a heading there.")
        assert headings == list(node.properties)


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ({"data": {"on_too_long": "cut"}}, "truncate"),
        ({"train": {"method": "qlora"}}, "lora"),
        ({"model": {"dtype": "BF16"}}, "bfloat16"),
        ({"train": {"optimizer": "adamw8bit"}}, "adamw"),
    ],
)
def test_a_foreign_value_is_answered_with_ours(given: dict[str, Any], ours: str) -> None:
    assert f'did you mean "{ours}"?' in message(**given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"run": "a b"}, "Allowed: up to 63 letters, digits, dots, hyphens and underscores, a letter or digit first"),
        ({"data": {"sources": "mine.jsonl"}}, "Write [{path: mine.jsonl}]"),
        ({"data": {"sources": ["mine.jsonl"]}}, "Write {path: mine.jsonl}"),
        ({"data": {"sources": {"path": "mine.jsonl", "split": None}}}, "Write it as an entry of a list: [{path: mine"),
        ({"data": {"sources": []}}, "Allowed: a list of at least one entry, each a mapping with the keys path, hub,"),
        ({"evaluate": {"metrics": {"right": "mine:right"}}}, "Write {function: mine:right}"),
        ({"evaluate": {"metrics": {"right": {}}}}, "evaluate.metrics.right.function: this key is missing. Add it"),
        ({"train": {"dropout": 1}}, "Allowed: a number of at least 0 and below 1"),
        ({"data": {"max_rejected": 2}}, "Allowed: a number from 0 to 1"),
        ({"pilot": {"max_hours": 0}}, "Allowed: a number above 0"),
        ({"train": {"num_layers": 0}}, "Allowed: a whole number of at least 1 or null"),
        ({"model": {"base": ""}}, "Allowed: text that is not empty"),
        (
            {"package": {"upload": {"repository": "me"}}},
            "an owner and a name with a slash between them or null",
        ),
    ],
)
def test_what_is_allowed_is_said_in_words(given: dict[str, Any], words: str) -> None:
    assert words in message(**given)


def test_every_pattern_is_described_in_words() -> None:
    def patterns(node: Any) -> list[dict[str, Any]]:
        if isinstance(node, list):
            return [found for item in node for found in patterns(item)]
        if not isinstance(node, dict):
            return []
        own = [node] if isinstance(node.get("pattern"), str) else []
        return own + [found for item in node.values() for found in patterns(item)]

    found = patterns(json_schema())
    assert len(found) > 5
    assert [rule for rule in found if "form" not in rule] == []
