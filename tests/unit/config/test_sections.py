"""The typed sections say what the schema says."""

import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from snaketune.config import schema, sections
from snaketune.config.schema_nodes import json_schema
from snaketune.config.sections import RunConfig, Section, TrainConfig

JSON_TYPES = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}


def choices(hint: Any) -> set[Any]:
    """The members of a union, a Literal by the types of its values."""
    if get_origin(hint) in (Union, types.UnionType):
        return set().union(*map(choices, get_args(hint)))
    if get_origin(hint) is Literal:
        return {type(value) for value in get_args(hint)}
    return {hint}


def expected(rule: dict[str, Any], found: set[Any]) -> set[Any]:
    """The Python types of what a schema node allows; a mapping with described keys is the Section among `found`."""
    if "anyOf" in rule:
        return set().union(*(expected(choice, found) for choice in rule["anyOf"]))
    if "const" in rule:
        return {type(rule["const"])}
    if "enum" in rule:
        return {type(value) for value in rule["enum"]}
    kinds = rule.get("type", [])
    made: set[Any] = set()
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind == "array":
            (made_of,) = (
                expected(rule["items"], {arg for one in found for arg in get_args(one)}) if "items" in rule else (Any,)
            )
            made.add(list[made_of])
        elif (
            kind == "object"
            and rule.get("properties")
            and not all("description" not in below for below in rule["properties"].values())
        ):
            made |= {one for one in found if isinstance(one, type) and issubclass(one, Section)}
        elif kind == "object":
            made |= {one for one in found if get_origin(one) is dict}
        else:
            made.add(JSON_TYPES[kind])
    return made


def differences(kind: type[Section], rule: dict[str, Any], path: str) -> list[str]:
    """What a Section and its schema node disagree about, here and below."""
    hints = get_type_hints(kind)
    if list(hints) != list(rule["properties"]):
        return [f"{path}: keys {list(hints)} and {list(rule['properties'])}"]
    found = []
    for key, below in rule["properties"].items():
        has = choices(hints[key])
        if has != expected(below, has):
            found.append(f"{path}.{key}: {has} and {expected(below, has)}")
        nested = [below, *below.get("anyOf", []), below.get("items", {}), below.get("additionalProperties") or {}]
        for one in has | {arg for outer in has for arg in get_args(outer)}:
            if isinstance(one, type) and issubclass(one, Section):
                (inner,) = (node for node in nested if isinstance(node, dict) and "properties" in node)
                found += differences(one, inner, f"{path}.{key}")
    return found


def test_sections_have_the_names_order_and_types_of_the_schema() -> None:
    assert differences(RunConfig, json_schema(), "") == []


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("rank", {"type": "number"}),
        ("rank", {"type": ["integer", "null"]}),
        ("max_grad_norm", {"type": "number"}),
        ("target_modules", {"type": "string"}),
        ("hosts", {"anyOf": [{"type": "null"}, {"type": "string"}]}),
    ],
)
def test_a_type_that_differs_from_the_schema_is_found(name: str, rule: dict[str, Any]) -> None:
    train = json_schema()["properties"]["train"]
    changed = train | {"properties": train["properties"] | {name: rule}}
    assert len(differences(TrainConfig, changed, "train")) == 1


def test_no_section_has_a_default_that_could_hide_what_the_user_wrote() -> None:
    for kind in sections.SECTIONS.values():
        assert all(field.required for field in msgspec.structs.fields(kind))


GIVEN: dict[str, Any] = {
    "run": "jessy-v2",
    "model": {"base": "some/model", "quantize": {"bits": 8}},
    "data": {"sources": [{"path": "x.csv", "category": {"field": "kind"}, "group": "one"}], "near_duplicates": False},
    "train": {"target_modules": ["v_proj", "q_proj"], "hosts": ["b", "a"], "learning_rate": "5e-5", "alpha": 1},
    "experiments": {"wide": {"rank": 64}, "again": None},
    "grid": {"rank": [32, 8]},
    "evaluate": {"metrics": {"right": {"function": "mine:right"}}, "thresholds": {"bleu": 30}},
}


@pytest.mark.parametrize("given", [{"run": "a"}, GIVEN], ids=["defaults", "everything"])
def test_loading_keeps_every_value_of_the_validated_configuration(given: dict[str, Any]) -> None:
    loaded = sections.load(given)
    assert schema.canonical(msgspec.to_builtins(loaded)) == schema.canonical(schema.complete(given))


def test_a_part_of_a_section_is_refused_instead_of_filled_with_defaults() -> None:
    with pytest.raises(msgspec.ValidationError, match="missing required field"):
        msgspec.convert({"rank": 8}, TrainConfig)


def test_a_section_for_a_caller_without_a_file_has_the_schemas_defaults() -> None:
    made = sections.section(TrainConfig, rank=4, learning_rate="1e-3")
    assert (made.rank, made.learning_rate, made.batch_size) == (4, 1e-3, 4)


def test_the_pilot_trains_one_epoch_or_its_own_steps_and_survives_divergence() -> None:
    config = sections.load({"run": "a", "train": {"epochs": 7, "max_steps": 900}, "pilot": {"max_steps": 30}})
    pilot = config.train.for_pilot(config.pilot.max_steps)
    assert (pilot.epochs, pilot.max_steps) == (1, 30)
    assert pilot.max_nonfinite_steps > 30
    assert pilot.rank == config.train.rank
    assert config.train.for_subset(12).max_steps == 12


def test_steps_between_validations_may_be_a_share_of_all_steps() -> None:
    train = sections.section(TrainConfig, eval_steps=0.25)
    assert [train.eval_interval(steps) for steps in (2, 8, 100)] == [1, 2, 25]
    assert sections.section(TrainConfig, eval_steps=40).eval_interval(7) == 40
