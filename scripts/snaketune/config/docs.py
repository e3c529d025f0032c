"""Generates from the schema what a user reads: the comments in YAML files and docs/configuration.md."""

from __future__ import annotations

import itertools
import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from snaketune.config import schema
from snaketune.config.schema_nodes import SchemaNode, root
from snaketune.files import StrPath, write_text

WIDTH = 110
YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
ESCAPED = re.compile(
    "[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"
)  # what YAML takes for no text, or a line's end
HEAD = """# Configuration

Every key, with its default and what is allowed. This page is generated from `schemas/` by `make docs`; a test fails
when the two differ. `make new NAME=... PRESET=...` writes a complete configuration with the same explanations in it.
An unknown key, a wrong type or a value out of range stops the run at once and names the key; beside a misspelled one
the message has the nearest keys, and the heading here under which all of its section stand.
"""


def to_commented_yaml(values: Mapping[str, object]) -> str:
    """Return complete settings as YAML in the order of the schema, each key under its description."""
    return "\n".join(_mapping(values, root(), top=True)).strip() + "\n"


def describe_key(node: SchemaNode) -> str:
    """Return a key's description, its unit where the description leaves it out, and when to change it."""
    unit = f"Unit: {node.unit}." if node.unit else ""
    example = f"Example: {inline_yaml(node.examples[0])}." if node.examples else ""
    return " ".join(filter(None, (node.description.strip(), unit, node.advice, example)))


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
    return [f"{key}: {inline_yaml(value)}"]


def _list(entries: Sequence[Mapping[str, object]], node: SchemaNode) -> list[str]:
    """Return a list of mappings: the first with all keys, those at their default commented out, the others inline."""
    first, *others = (_without_defaults(entry, node) for entry in entries)
    given = [key for key in node.properties if key in first]
    unset = [key for key in node.properties if key not in first]
    lines = _comment(node.properties[given[0]])  # above the dash
    opening, *rest = _entry(given[0], first[given[0]], node.properties[given[0]])
    for key in given[1:]:
        rest += [*_comment(node.properties[key]), *_entry(key, first[key], node.properties[key])]
    rest.append("# Further keys of an entry, with their defaults or an example; take the # away to set one.")
    for key in unset:
        below = node.properties[key]
        rest += [*_comment(below), f"#{key}: {inline_yaml(below.examples[0] if below.examples else below.default)}"]
    return [*lines, f"- {opening}", *_indented(rest), *(f"- {inline_yaml(entry)}" for entry in others)]


def _without_defaults(entry: Mapping[str, object], node: SchemaNode) -> dict[str, object]:
    return {key: value for key, value in entry.items() if value != node.properties[key].default}


def _comment(node: SchemaNode) -> list[str]:
    return textwrap.wrap(describe_key(node), WIDTH, initial_indent="# ", subsequent_indent="# ")


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" if line else line for line in lines]


def inline_yaml(value: object) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{inline_yaml(key)}: {inline_yaml(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline_yaml, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value) and value not in YAML_WORDS:
        return value
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def page() -> str:
    """Return the whole page as Markdown."""
    lines = [HEAD]
    for key, node in root().properties.items():
        lines += _section(key, node)
    return "\n".join(lines).rstrip() + "\n"


def _section(path: str, node: SchemaNode) -> list[str]:
    """Return one top-level key: a heading, its description, and a table of the keys below it."""
    lines = [f"## {path}", "", _plain(describe_key(node)), ""]
    rows = list(_rows(node, ""))
    if not rows:
        default = f"Default: {_default(node)}" if node.default is not msgspec.UNSET else "Required"
        return [*lines, f"{default}. Allowed: {_cell(node.allowed())}.", ""]
    lines += ["| key | default | meaning | allowed |", "|---|---|---|---|"]
    for name, below in rows:
        cells = [f"`{name}`", _default(below), _cell(describe_key(below)), _cell(below.allowed())]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _rows(node: SchemaNode, prefix: str) -> list[tuple[str, SchemaNode]]:
    """Return all keys below a node by their path, such as sources[].path."""
    found: list[tuple[str, SchemaNode]] = []
    for key, below in node.properties.items():
        found.append((prefix + key, below))
        found += _rows(below, f"{prefix}{key}.")
        found += _rows(below.items, f"{prefix}{key}[].") if below.items else []
    return found


def _default(node: SchemaNode) -> str:
    if node.default is msgspec.UNSET or (node.default == {} and node.properties):
        return ""
    return f"`{_cell(json.dumps(node.default, ensure_ascii=False))}`"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def regenerate_shipped_config(path: StrPath) -> str:
    """Return config.yaml with the values that it has: its own first lines, then every key and its comment."""
    text = Path(path).read_text(encoding="utf-8")
    head = "".join(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    return f"{head}\n{to_commented_yaml(schema.complete(schema.read(Path(path))))}"


if __name__ == "__main__":
    reference, configuration = sys.argv[1:]
    write_text(reference, page())
    write_text(configuration, regenerate_shipped_config(configuration))
