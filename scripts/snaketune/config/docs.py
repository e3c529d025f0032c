"""Generates from the schema what a user reads: docs/configuration.md and the comments of config.yaml."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import msgspec

from snaketune.config import schema
from snaketune.config.commented_yaml import describe_key, to_commented_yaml
from snaketune.config.schema_nodes import SchemaNode, root
from snaketune.files import StrPath, write_text

HEAD = """# Configuration

Every key, with its default and what is allowed. This page is generated from `schemas/` by `make docs`; a test fails
when the two differ. `make new NAME=... PRESET=...` writes a complete configuration with the same explanations in it.
An unknown key, a wrong type or a value out of range stops the run at once and names the key.
"""


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
