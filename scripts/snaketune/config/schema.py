"""Reads a configuration, validates it against schemas/, fills in the defaults and explains mistakes in one line.

The schema is JSON Schema (draft 2020-12), one YAML file per section; schemas/config.yaml names the sections. Besides
JSON Schema's own keywords, `unit` says what a number counts, `advice` when to change a value, `form` what a pattern
means, and `bare_value` which key of a mapping a bare value stands for.
"""

from __future__ import annotations

import copy
import difflib
import functools
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from snaketune.config import foreign_keys
from snaketune.errors import ConfigError

SCHEMAS = Path(__file__).resolve().parents[3] / "schemas"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_KIND = {"dict": "object", "list": "array"}
TAKEN = ("models", "logs", "runs.html", "runs.json")  # in results, beside the runs
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
KINDS = {
    "number": "a number",
    "integer": "a whole number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
    "anything": "anything",
}
LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


@functools.cache
def schema() -> dict[str, Any]:
    """The whole schema, with the section files put in the place of their `$ref`s."""
    return _inlined(_read_yaml(SCHEMAS / "config.yaml"))


def _read_yaml(path: Path) -> Any:
    with open(path, "rb") as content:
        return yaml.load(content, Loader)


def _inlined(node: Any) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            file, _, key = node["$ref"].partition("#/")
            found = _read_yaml(SCHEMAS / file)
            return _inlined(found[key] if key else found) | {k: v for k, v in node.items() if k != "$ref"}
        return {key: _inlined(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_inlined(item) for item in node]
    return node


def read(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; a syntax error names the line."""
    try:
        found = _read_yaml(Path(path))
    except OSError as error:
        raise ConfigError(f"the configuration cannot be read ({error.strerror})", where=str(path)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"this is not valid YAML: {problem}", where=where, fix="Mend that line") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError("a configuration is a list of `key: value` lines", where=str(path))
    return found


def complete(given: dict[str, Any]) -> dict[str, Any]:
    """The validated configuration: numbers written as text turned into numbers, every default filled in.

    Raises ConfigError for the first mistake, with the key's path, what is allowed, and a near miss if there is one.
    """
    filled = _filled(copy.deepcopy(given), schema())
    _check(filled, schema())
    if filled["run"] in TAKEN:
        raise ConfigError(
            f'"{filled["run"]}" is taken', where="run", why="results holds it for all runs", fix="Choose another name"
        )
    return filled


def _filled(value: Any, rule: dict[str, Any]) -> Any:
    """`value` with `5e-5`-like text made a number where `rule` wants one, and defaults filled in below it."""
    value = _number(value, rule)
    if isinstance(value, dict):
        properties = rule.get("properties", {})
        for key, below in properties.items():
            if key in value:
                value[key] = _filled(value[key], below)
            elif "default" in below:
                value[key] = _filled(copy.deepcopy(below["default"]), below)
        extra = rule.get("additionalProperties")
        if isinstance(extra, dict):
            for key in value.keys() - properties.keys():
                value[key] = _filled(value[key], extra)
    elif isinstance(value, list) and "items" in rule:
        value = [_filled(item, rule["items"]) for item in value]
    for choice in rule.get("anyOf", []):
        if choice.get("type") == _KIND.get(type(value).__name__):
            value = _filled(value, choice)
        else:
            value = _number(value, choice)
    return value


def _number(value: Any, rule: dict[str, Any]) -> Any:
    """YAML reads `5e-5` as text; people mean the number."""
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    numeric = {"number", "integer"} & set(kinds) and "string" not in kinds
    if numeric and isinstance(value, str) and NUMBER.fullmatch(value):
        number = float(value)
        return int(number) if number == math.floor(number) and "integer" in kinds else number
    if isinstance(value, int) and not isinstance(value, bool) and "number" in kinds and "integer" not in kinds:
        return float(value)  # 1 and 1.0 are the same setting, and must have the same canonical form
    return value


def checked(value: Any, rule: dict[str, Any], where: str) -> Any:
    """One setting, held against its part of the schema: as `complete` would hand it on, or ConfigError at `where`."""
    filled = _filled(copy.deepcopy(value), rule)
    _check(filled, rule, (where,))
    return filled


def _check(filled: Any, rules: dict[str, Any], at: Iterable[Any] = ()) -> None:
    import jsonschema

    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _matches})(rules)
    errors = sorted(validator.iter_errors(filled), key=lambda e: (len(e.absolute_path), str(e.json_path)))
    if errors:
        raise _explained(errors[0], at)
    _check_finite(filled, tuple(at))


def _matches(_validator: Any, pattern: str, instance: Any, _rule: dict[str, Any]) -> Iterator[Any]:
    """JSON Schema's `pattern`, where `$` is the end of the text and not, as in Python, also the line before it."""
    import jsonschema

    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _check_finite(value: Any, path: tuple[Any, ...]) -> None:
    """YAML knows `.inf` and `.nan`, and a range without an upper end lets them through."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{value} is not allowed", where=_path(path), fix="Give a finite number")
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            _check_finite(below, (*path, key))


def _explained(error: Any, at: Iterable[Any]) -> ConfigError:
    """Return one jsonschema error as a sentence with the key's path and what is allowed."""
    path = (*at, *error.absolute_path)
    rule = error.schema
    if error.validator == "additionalProperties":
        known = list(rule.get("properties", {}))
        unknown = next(key for key in error.instance if key not in known)
        return ConfigError(
            f"there is no such key{suggest_key((*path, unknown), known)}",
            where=_path([*path, unknown]),
            why="An unknown key would have no effect",
            fix=f"Keys allowed here: {', '.join(known)}",
        )
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return ConfigError("this key is missing", where=_path([*path, missing]), fix=_how_to_write(error) or "Add it")
    shown = json.dumps(error.instance, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    fix = _how_to_write(error) or f"Allowed: {allowed(rule)}"
    return ConfigError(f"{shown} is not allowed{_suggest_value(path, error)}", where=_path(path), fix=fix)


def _how_to_write(error: Any) -> str | None:
    """Return how a bare value is written where a mapping, or a list of mappings, is wanted; None elsewhere."""
    rule, value = error.schema, error.instance
    wants_list = rule.get("type") == "array"
    item = rule.get("items", {}) if wants_list else rule
    if wants_list and isinstance(value, dict):
        return f"Write it as an entry of a list: [{_short_yaml(value)}]"
    if "bare_value" not in item or not isinstance(value, str):
        return None
    written = "{" + f"{item['bare_value']}: {value}" + "}"
    return f"Write [{written}]" if wants_list else f"Write {written}"


def _short_yaml(value: Any) -> str:
    written = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=1000).strip()
    return written if len(written) <= 100 else "{...}"


def _suggest_value(path: Iterable[Any], error: Any) -> str:
    known = foreign_keys.known_value(_without_indices(path), error.instance)
    if known:
        return f'; did you mean "{known}"?'
    return did_you_mean(error.instance, error.schema["enum"]) if "enum" in error.schema else ""


@functools.cache
def key_paths() -> dict[str, list[str]]:
    """Return the paths of all keys, such as train.rank, by their last word; list indices are left out."""
    found: dict[str, list[str]] = {}

    def visit(node: dict[str, Any], path: str) -> None:
        for key, below in node.get("properties", {}).items():
            found.setdefault(key, []).append(f"{path}{key}")
            for inner in (below, below.get("items", {})):
                visit(inner, f"{path}{key}.")

    visit(schema(), "")
    return found


def suggest_key(path: Iterable[Any], known: Iterable[str]) -> str:
    """Return `; did you mean "x"?` for an unknown key at `path`, beside which the keys `known` are allowed.

    Looks for the key's name in earlier versions and in other tools, then for a near miss here, then in other sections.
    """
    here, _, key = _without_indices(path).rpartition(".")
    ours = foreign_keys.our_key(here, key)
    candidates = [ours] if ours else key_paths().get(key, [])
    if not candidates and (near := difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)):
        candidates = [f"{here}.{near[0]}".lstrip(".")]
    if not candidates and (near := difflib.get_close_matches(key, key_paths(), n=1, cutoff=0.8)):
        candidates = key_paths()[near[0]]
    names = [f'"{_seen_from(here, candidate)}"' for candidate in candidates[:3]]
    return f"; did you mean {' or '.join(names)}?" if names else ""


def _seen_from(section: str, path: str) -> str:
    """Return a key's path as it is written inside `section`: without the section's own name."""
    return path.removeprefix(f"{section}.")


def _without_indices(path: Iterable[Any]) -> str:
    return ".".join(str(part) for part in path if not isinstance(part, int))


def allowed(rule: dict[str, Any]) -> str:
    """Return what a schema node accepts, in words."""
    if "anyOf" in rule:
        return " or ".join(
            allowed(choice) for choice in sorted(rule["anyOf"], key=lambda one: one.get("type") == "null")
        )
    if "enum" in rule:
        return ", ".join(_plain(value) for value in rule["enum"])
    if "const" in rule:
        return _plain(rule["const"])
    kinds = rule.get("type", "anything")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_kind_in_words(kind, rule) for kind in sorted(kinds, key=lambda kind: kind == "null"))


def _kind_in_words(kind: str, rule: dict[str, Any]) -> str:
    if kind in ("number", "integer"):
        return f"{KINDS[kind]}{_range_in_words(rule)}"
    if kind == "string":
        return str(rule.get("form") or ("text that is not empty" if rule.get("minLength") else KINDS[kind]))
    if kind == "array" and "items" in rule:
        least = " of at least one entry, each " if rule.get("minItems") else " of entries, each "
        return f"a list{least}{allowed(rule['items'])}"
    if kind == "object" and rule.get("properties"):
        return f"a mapping with the keys {', '.join(rule['properties'])}"
    return KINDS[kind]


def _range_in_words(rule: dict[str, Any]) -> str:
    """Return ` from 0 to 1`, ` of at least 1`, ` above 0 and below 1` or nothing."""
    if "minimum" in rule and "maximum" in rule:
        return f" from {rule['minimum']} to {rule['maximum']}"
    ends = " and ".join(f"{words} {rule[key]}" for key, words in LIMITS.items() if key in rule)
    return f" of {ends}" if ends.startswith("at") else f" {ends}" if ends else ""


def did_you_mean(word: Any, known: Iterable[Any]) -> str:
    """`; did you mean "x"?` for the nearest of `known`, or nothing."""
    names = [name for name in known if isinstance(name, str)]
    near = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _path(parts: Iterable[Any]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "configuration"


def canonical(value: Any) -> str:
    """One string for a setting, the same for the same meaning: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
