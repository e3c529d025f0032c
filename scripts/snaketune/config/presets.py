"""A configuration of one's own: complete, every key commented from the schema, with a preset's values filled in."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from snaketune.config import schema
from snaketune.errors import ConfigError, UserError
from snaketune.files import write_text

PRESETS = schema.SCHEMAS.parent / "presets"
WIDTH = 110


def names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def new(name: str, preset: str, folder: str | Path = ".") -> Path:
    """Write `<name>.yaml` from a preset; an existing file is never overwritten."""
    target = Path(folder) / f"{name}.yaml"
    if not name:
        raise ConfigError("a configuration needs a name", fix=f"make new NAME=jessy-v1 PRESET={names()[0]}")
    if preset not in names():
        near = schema.did_you_mean(preset, names())
        raise ConfigError(f'there is no preset "{preset}"{near}', where="PRESET", fix=f"Presets: {', '.join(names())}")
    if target.exists():
        raise ConfigError("this file exists", where=str(target), fix="Choose another NAME, or edit the file")
    source = PRESETS / f"{preset}.yaml"
    values = schema.complete(schema.read(source) | {"run": name})
    head = "".join(line for line in source.read_text().splitlines(keepends=True) if line.startswith("#"))
    write_text(target, head + "\n" + commented(values))
    return target


def commented(values: dict[str, Any]) -> str:
    """Complete settings as YAML, in the schema's order, each key under what the schema says of it."""
    return "\n".join(_lines(values, schema.schema(), 0)).strip() + "\n"


def _lines(values: dict[str, Any], rule: dict[str, Any], depth: int) -> list[str]:
    """The keys of one mapping; a mapping with fixed keys opens a level below, anything else stands on one line."""
    out = []
    for key, below in rule["properties"].items():
        if key not in values:
            continue
        if depth == 0:
            out.append("")
        out += textwrap.wrap(said_of(below), WIDTH, initial_indent="# ", subsequent_indent="# ")
        if isinstance(values[key], dict) and "properties" in below:
            out += [f"{key}:", *_lines(values[key], below, depth + 1)]
        elif isinstance(values[key], list) and values[key] and isinstance(values[key][0], dict):
            out += [f"{key}:", *(f"  - {_flow(_trimmed(item, below.get('items', {})))}" for item in values[key])]
        else:
            out.append(f"{key}: {_flow(values[key])}")
    return [("  " + line) if depth and line else line for line in out]


def _trimmed(item: dict[str, Any], rule: dict[str, Any]) -> dict[str, Any]:
    """A list's entry without the keys that only repeat their default."""
    known = rule.get("properties", {})
    return {key: value for key, value in item.items() if value != known.get(key, {}).get("default", ...)}


def said_of(rule: dict[str, Any]) -> str:
    """What the schema says of a key, in one paragraph: description, unit, what is allowed, when to change it."""
    text = rule.get("description", "").strip()
    if unit := rule.get("unit"):
        text += f" In {unit}."
    if when := rule.get("when"):
        text += f" Change it: {when}."
    return text


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value) and value not in _WORDS:
        return value
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return json.dumps(value, ensure_ascii=False)


_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


if __name__ == "__main__":
    try:
        made = new(*sys.argv[1:3])
    except UserError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(f"{made} is written. Point data.sources to your rows, then: snakemake --configfile {made} -n")
