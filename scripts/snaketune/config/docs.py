"""What is generated from the schema: docs/configuration.md, and the comments of config.yaml."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

from snaketune.config import schema
from snaketune.config.presets import commented, said_of
from snaketune.files import StrPath, write_text

HEAD = """# Configuration

Every key, with its default and what is allowed. This page is generated from `schemas/` by `make docs`; a test fails
when the two differ. `make new NAME=... PRESET=...` writes a complete configuration with the same explanations in it.
An unknown key, a wrong type or a value out of range stops at once and names the key.
"""


def page() -> str:
    """The whole page as Markdown."""
    lines = [HEAD]
    for key, rule in schema.schema()["properties"].items():
        lines += _section(key, rule)
    return "\n".join(lines).rstrip() + "\n"


def _section(path: str, rule: dict[str, Any]) -> list[str]:
    """One top-level key: a heading, what it says, and a table of the keys below it."""
    lines = [f"## {path}", "", _plain(said_of(rule)), ""]
    rows = list(_rows(rule, ""))
    if not rows:
        return [*lines, f"Default: {_value(rule)}. Allowed: {_cell(schema.allowed(rule))}.", ""]
    lines += ["| key | default | meaning | allowed |", "|---|---|---|---|"]
    for name, below in rows:
        said = [f"`{name}`", _value(below), _cell(said_of(below)), _cell(schema.allowed(below))]
        lines.append(f"| {' | '.join(said)} |")
    return [*lines, ""]


def _rows(rule: dict[str, Any], prefix: str) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for key, below in rule.get("properties", {}).items():
        found.append((prefix + key, below))
        found += _rows(below, f"{prefix}{key}.")
        found += _rows(below.get("items", {}), f"{prefix}{key}[].")
    return found


def _value(rule: dict[str, Any]) -> str:
    if "default" not in rule or (rule["default"] == {} and "properties" in rule):
        return ""
    return f"`{_cell(json.dumps(rule['default'], ensure_ascii=False))}`"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def shipped(path: StrPath) -> str:
    """The text of config.yaml with the values that it has: its own first lines, then every key and its comment."""
    text = Path(path).read_text(encoding="utf-8")
    head = "".join(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    return f"{head}\n{commented(schema.complete(schema.read(Path(path))))}"


if __name__ == "__main__":
    reference, configuration = sys.argv[1:]
    write_text(reference, page())
    write_text(configuration, shipped(configuration))
