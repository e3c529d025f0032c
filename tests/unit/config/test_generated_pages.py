"""Comments made from the schema read as sentences, and a user finds every key of a source in the file."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from snaketune.config import docs, schema
from snaketune.config.docs import describe_key, to_commented_yaml
from snaketune.config.schema_nodes import SchemaNode, json_schema

ROOT = Path(__file__).resolve().parents[3]
SOURCE_KEYS = list(json_schema()["properties"]["data"]["properties"]["sources"]["items"]["properties"])


def descriptions(rule: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    found = {}
    for key, below in rule.get("properties", {}).items():
        found[f"{path}{key}"] = below
        for inner in (below, below.get("items", {}), below.get("additionalProperties")):
            found |= descriptions(inner, f"{path}{key}.") if isinstance(inner, dict) else {}
    return found


def test_a_unit_is_printed_only_where_the_description_lacks_it() -> None:
    assert describe_key(SchemaNode(description="Longest row.")) == "Longest row."
    assert describe_key(SchemaNode(description="Longest row.", unit="tokens")) == "Longest row. Unit: tokens."
    for path, rule in descriptions(json_schema()).items():
        if unit := rule.get("unit"):
            assert unit.rstrip("s") not in rule["description"], f"{path} says its unit twice"


def test_advice_is_a_whole_sentence() -> None:
    for path, rule in descriptions(json_schema()).items():
        if advice := rule.get("advice"):
            assert re.fullmatch(r"[A-Zq].*[.]", advice.strip(), re.DOTALL), path
            assert "Change it:" not in advice


@pytest.mark.parametrize("sources", [[{"path": "b.csv", "fields": {"response": "Antwort"}}], [{"hub": "me/rows"}]])
def test_a_new_configuration_shows_every_key_of_a_source(sources: list[dict[str, Any]]) -> None:
    given = schema.complete({"run": "a", "data": {"sources": sources}})
    text = to_commented_yaml(given)
    assert schema.complete(yaml.safe_load(text)) == given
    for key in SOURCE_KEYS:
        assert len(re.findall(rf"^ +(?:- |#)?{key}:", text.split("\npilot:")[0], re.MULTILINE)) >= 1, key


def test_taking_the_hash_away_sets_a_key_of_a_source() -> None:
    text = to_commented_yaml(schema.complete({"run": "a", "data": {"sources": [{"path": "x"}, {"path": "y"}]}}))
    changed = yaml.safe_load(text.replace("#weight: 1", "weight: 0.5").replace("#hub_split: train", "hub_split: test"))
    assert (
        schema.complete(changed)["data"]["sources"][0] | {"weight": 0.5, "hub_split": "test"}
        == schema.complete({"run": "a", "data": {"sources": [{"path": "x", "weight": 0.5, "hub_split": "test"}]}})[
            "data"
        ]["sources"][0]
    )
    assert changed["data"]["sources"][1] == {"path": "y"}


def test_the_documented_form_of_a_custom_metric_is_accepted() -> None:
    for text in (docs.page(), (ROOT / "config.yaml").read_text(encoding="utf-8")):
        (form,) = re.findall(r'`name: (\{function: "module:function"\})`', " ".join(text.replace("# ", "").split()))
        given = {"run": "a", "evaluate": {"metrics": {"name": yaml.safe_load(form)}}}
        assert schema.complete(given)["evaluate"]["metrics"]["name"]["function"] == "module:function"


def test_a_key_without_a_default_is_called_required() -> None:
    assert "Required. Allowed: up to 63 letters" in docs.page()
    assert "Default: ." not in docs.page()
