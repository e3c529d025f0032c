"""The schema of the configuration: the JSON Schema files in schemas/ as one document and as typed nodes.

One YAML file per section; schemas/config.yaml names the sections. Besides JSON Schema's own keywords, `unit` says what
a number counts, `advice` when to change a value, `form` what a pattern means, and `bare_value` which key of a mapping a
bare value stands for.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import msgspec
import yaml

SCHEMAS = Path(__file__).resolve().parents[3] / "schemas"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Number = int | float
TYPE_NAMES = {
    "number": "a number",
    "integer": "a whole number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


class SchemaNode(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={
        "any_of": "anyOf",
        "additional_properties": "additionalProperties",
        "exclusive_minimum": "exclusiveMinimum",
        "exclusive_maximum": "exclusiveMaximum",
        "min_items": "minItems",
        "min_length": "minLength",
    },
):
    """What the schema says of one value, as far as defaults, messages and the generated pages need it."""

    description: str = ""
    unit: str = ""
    advice: str = ""
    form: str = ""
    bare_value: str = ""
    type: str | list[str] = msgspec.field(default_factory=list)
    enum: list[Any] | None = None
    const: Any = msgspec.UNSET
    default: Any = msgspec.UNSET
    examples: list[Any] = msgspec.field(default_factory=list)
    any_of: list[SchemaNode] = msgspec.field(default_factory=list)
    properties: dict[str, SchemaNode] = msgspec.field(default_factory=dict)
    additional_properties: bool | SchemaNode = True
    items: SchemaNode | None = None
    minimum: Number | None = None
    exclusive_minimum: Number | None = None
    maximum: Number | None = None
    exclusive_maximum: Number | None = None
    min_items: int = 0
    min_length: int = 0

    @property
    def types(self) -> list[str]:
        """The JSON types that are allowed, null last."""
        types = [self.type] if isinstance(self.type, str) else self.type
        return sorted(types, key=lambda name: name == "null")

    def allowed(self) -> str:
        """Return what is allowed, in words."""
        if self.any_of:
            return " or ".join(choice.allowed() for choice in sorted(self.any_of, key=lambda one: one.type == "null"))
        if self.enum is not None:
            return ", ".join(map(_plain, self.enum))
        if self.const is not msgspec.UNSET:
            return _plain(self.const)
        return " or ".join(self._type_in_words(name) for name in self.types) or "anything"

    def _type_in_words(self, name: str) -> str:
        if name in ("number", "integer"):
            return f"{TYPE_NAMES[name]}{self._range_in_words()}"
        if name == "string":
            return self.form or ("text that is not empty" if self.min_length else TYPE_NAMES[name])
        if name == "array" and self.items:
            least = "at least one entry" if self.min_items else "entries"
            return f"a list of {least}, each {self.items.allowed()}"
        if name == "object" and self.properties:
            return f"a mapping with the keys {', '.join(self.properties)}"
        return TYPE_NAMES[name]

    def _range_in_words(self) -> str:
        """Return ` from 0 to 1`, ` of at least 1`, ` above 0 and below 1` or nothing."""
        if self.minimum is not None and self.maximum is not None:
            return f" from {self.minimum} to {self.maximum}"
        limits = {
            "at least": self.minimum,
            "above": self.exclusive_minimum,
            "at most": self.maximum,
            "below": self.exclusive_maximum,
        }
        ends = " and ".join(f"{words} {limit}" for words, limit in limits.items() if limit is not None)
        return f" of {ends}" if ends.startswith("at") else f" {ends}" if ends else ""


@functools.cache
def json_schema() -> dict[str, Any]:
    """Return the whole schema as JSON Schema, with the section files in place of their `$ref`s."""
    return _inline_references(_read_yaml(SCHEMAS / "config.yaml"))


@functools.cache
def root() -> SchemaNode:
    """Return the whole schema."""
    return msgspec.convert(json_schema(), SchemaNode)


@functools.cache
def key_paths() -> dict[str, list[str]]:
    """Return the paths of all keys, such as train.rank, by their last word; list indices are left out."""
    found: dict[str, list[str]] = {}

    def add(node: SchemaNode, path: str) -> None:
        for key, below in node.properties.items():
            found.setdefault(key, []).append(f"{path}{key}")
            for inner in filter(None, (below, below.items)):
                add(inner, f"{path}{key}.")

    add(root(), "")
    return found


def _read_yaml(path: Path) -> Any:
    with open(path, "rb") as content:
        return yaml.load(content, Loader)


def _inline_references(node: Any) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            file, _, key = node["$ref"].partition("#/")
            found = _read_yaml(SCHEMAS / file)
            return _inline_references(found[key] if key else found) | {k: v for k, v in node.items() if k != "$ref"}
        return {key: _inline_references(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_inline_references(item) for item in node]
    return node


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
