"""The configuration is strict, complete, and explains itself."""

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from snaketune.config import presets, schema
from snaketune.config.schema_nodes import json_schema
from snaketune.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


def leaves(rule: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    found = []
    for key, below in rule.get("properties", {}).items():
        found.append(((*path, key), below))
        found += leaves(below, (*path, key))
    return found


def test_every_key_has_a_description() -> None:
    silent = [".".join(path) for path, rule in leaves(json_schema()) if not rule.get("description")]
    assert silent == []


def test_defaults_alone_are_a_valid_configuration() -> None:
    assert schema.complete({"run": "a"})["train"]["rank"] == 16


def test_completing_twice_changes_nothing() -> None:
    once = schema.complete({"run": "a"})
    assert schema.complete(copy.deepcopy(once)) == once


def test_a_number_written_with_an_exponent_is_a_number() -> None:
    given_text = yaml.safe_load("{run: a, train: {learning_rate: 5e-5}}")
    assert isinstance(given_text["train"]["learning_rate"], str)  # what YAML makes of it
    assert schema.complete(given_text)["train"]["learning_rate"] == 5e-5


def test_an_integer_and_an_equal_float_are_the_same_setting() -> None:
    whole, point = (schema.complete({"run": "a", "train": {"alpha": value}}) for value in (32, 32.0))
    assert schema.canonical(whole) == schema.canonical(point)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"run": "a", "trian": {}}, ["trian", 'did you mean "train"']),
        ({"run": "a", "train": {"learnin_rate": 1}}, ["train.learnin_rate", 'did you mean "learning_rate"']),
        ({"run": "a", "train": {"rank": "many"}}, ["train.rank", "whole number", "at least 1"]),
        ({"run": "a", "train": {"rank": 0}}, ["train.rank", "at least 1"]),
        ({"run": "a", "train": {"rank": True}}, ["train.rank", "whole number"]),
        ({"run": "../b"}, ["run", "letters, digits"]),
        ({}, ["run", "missing"]),
        ({"run": "a", "data": {"sources": []}}, ["data.sources"]),
        ({"run": "a", "data": {"sources": [{"paht": "x"}]}}, ["data.sources[0].paht", 'did you mean "path"']),
        ({"run": "a", "model": {"dtype": "float23"}}, ["model.dtype", 'did you mean "float32"']),
        ({"run": "a", "train": {"alpha": float("inf")}}, ["train.alpha", "finite"]),
        ({"run": "a", "train": {"learning_rate": "fast"}}, ["train.learning_rate", "a number"]),
    ],
)
def test_a_mistake_is_reported_with_the_path_of_the_key_and_what_is_allowed(
    wrong: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        schema.complete(wrong)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", [{"train": 1.0}, {"train": 0.7, "test": 0.1}, {"valid": 0, "test": 0}])
def test_shares_that_do_not_add_up_to_one_are_refused_before_anything_runs(split: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"data\.split: the shares of train, valid and test add up to .*, not 1"):
        schema.complete({"run": "a", "data": {"split": split}})


def test_shares_may_be_off_by_rounding_alone() -> None:
    thirds = {"train": 0.333333333333, "valid": 0.333333333333, "test": 0.333333333334}
    assert schema.complete({"run": "a", "data": {"split": thirds}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([path for path, _ in leaves(json_schema())]), json_values)
def test_any_value_anywhere_is_taken_or_refused_in_words(path: tuple[str, ...], value: Any) -> None:
    wanted: dict[str, Any] = {"run": "a"}
    place = wanted
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    with contextlib.suppress(ConfigError):  # any other exception fails the test
        schema.complete(wanted)


def test_a_yaml_syntax_error_is_reported_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("run: a\ntrain: {rank: 3\nmodel: x\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:2: .* never closed"):
        schema.read(path)


@pytest.mark.parametrize("name", presets.names())
def test_a_new_configuration_from_a_preset_means_what_the_preset_means(name: str, tmp_path: Path) -> None:
    made = presets.new("mine", name, tmp_path)
    expected = schema.complete(schema.read(presets.PRESETS / f"{name}.yaml") | {"run": "mine"})
    assert schema.complete(schema.read(made)) == expected
    text = made.read_text()
    for key in ("learning_rate", "max_length", "on_no_go"):
        assert f"{key}:" in text  # complete, not only what the preset sets


def test_an_existing_configuration_is_never_overwritten(tmp_path: Path) -> None:
    made = presets.new("mine", presets.names()[0], tmp_path)
    before = made.read_text()
    with pytest.raises(ConfigError, match="exists"):
        presets.new("mine", presets.names()[1], tmp_path)
    assert made.read_text() == before


def test_an_unknown_preset_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        presets.new("mine", presets.names()[0][:-1] + "x", tmp_path)


@given(json_values)
def test_a_canonical_form_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    def reversed_keys(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: reversed_keys(node[key]) for key in reversed(node)}
        return [reversed_keys(item) for item in node] if isinstance(node, list) else node

    assert schema.canonical(value) == schema.canonical(reversed_keys(value))
    assert json.loads(schema.canonical(value)) == value


def test_the_environments_hold_the_pins_of_requirements() -> None:
    pins = {line.strip() for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1].isalpha()}
    held = set()
    for path in (ROOT / "envs").glob("*.yaml"):
        listed = yaml.safe_load(path.read_text())["dependencies"][-1]["pip"]
        listed = [line for line in listed if not line.startswith("--")]
        assert set(listed) <= pins, f"{path.name} has a pin that requirements.txt has not"
        held |= set(listed)
    assert pins - held == {pin for pin in pins if pin.startswith("snakemake")}


def test_the_conda_environment_of_each_trainer_holds_the_pins_that_make_trainer_installs() -> None:
    pinned = sorted((ROOT / "envs" / "trainers").glob("*.txt"))
    assert pinned
    for path in pinned:
        pins = [line for line in path.read_text().splitlines() if line[:1].isalpha()]
        assert yaml.safe_load(path.with_suffix(".yaml").read_text())["dependencies"][-1]["pip"] == pins


def test_the_reference_is_what_the_schema_says() -> None:
    from snaketune.config import docs

    written = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert written == docs.page(), "run `make docs`"


def test_the_shipped_configuration_is_complete_and_commented() -> None:
    from snaketune.config import docs

    path = ROOT / "config.yaml"
    assert schema.read(path).keys() == schema.complete(schema.read(path)).keys()
    assert path.read_text(encoding="utf-8") == docs.regenerate_shipped_config(path), "run `make docs`"
