"""Writes settings as YAML in which every key stands under a comment made from the schema."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence

from snaketune.config.schema_nodes import SchemaNode, root

WIDTH = 110
YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def to_commented_yaml(values: Mapping[str, object]) -> str:
    """Return complete settings as YAML in the order of the schema, each key under its description."""
    return "\n".join(_mapping(values, root(), top=True)).strip() + "\n"


def describe_key(node: SchemaNode) -> str:
    """Return a key's description, its unit where the description leaves it out, and when to change it."""
    unit = f"Unit: {node.unit}." if node.unit else ""
    return " ".join(filter(None, (node.description.strip(), unit, node.advice)))


def _mapping(values: Mapping[str, object], node: SchemaNode, *, top: bool = False) -> list[str]:
    """Return the lines of a mapping with fixed keys."""
    lines = []
    for key, below in node.properties.items():
        if key in values:
            lines += ([""] if top else []) + _comment(below) + _entry(key, values[key], below)
    return lines


def _entry(key: str, value: object, node: SchemaNode) -> list[str]:
    """Return one key with its value: a mapping with fixed keys and a list of them on lines of their own."""
    if isinstance(value, Mapping) and node.properties:
        return [f"{key}:", *_indented(_mapping(value, node))]
    if isinstance(value, list) and value and isinstance(value[0], Mapping) and node.items:
        return [f"{key}:", *_indented(_list(value, node.items))]
    return [f"{key}: {_inline_yaml(value)}"]


def _list(entries: Sequence[Mapping[str, object]], node: SchemaNode) -> list[str]:
    """Return a list of mappings: the first with all keys, those at their default commented out, the others inline."""
    first, *others = (_without_defaults(entry, node) for entry in entries)
    given = [key for key in node.properties if key in first]
    unset = [key for key in node.properties if key not in first]
    lines = _comment(node.properties[given[0]])  # above the dash
    opening, *rest = _entry(given[0], first[given[0]], node.properties[given[0]])
    for key in given[1:]:
        rest += [*_comment(node.properties[key]), *_entry(key, first[key], node.properties[key])]
    rest.append("# Further keys of an entry, with their defaults; take the # away to set one.")
    for key in unset:
        below = node.properties[key]
        rest += [*_comment(below), f"#{key}: {_inline_yaml(below.default)}"]
    return [*lines, f"- {opening}", *_indented(rest), *(f"- {_inline_yaml(entry)}" for entry in others)]


def _without_defaults(entry: Mapping[str, object], node: SchemaNode) -> dict[str, object]:
    return {key: value for key, value in entry.items() if value != node.properties[key].default}


def _comment(node: SchemaNode) -> list[str]:
    return textwrap.wrap(describe_key(node), WIDTH, initial_indent="# ", subsequent_indent="# ")


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" if line else line for line in lines]


def _inline_yaml(value: object) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_inline_yaml(key)}: {_inline_yaml(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline_yaml, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value) and value not in YAML_WORDS:
        return value
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return json.dumps(value, ensure_ascii=False)
