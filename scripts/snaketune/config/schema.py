"""Reads a configuration, validates it against the schema, fills in the defaults, explains mistakes in one line."""

from __future__ import annotations

import copy
import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from snaketune.config import foreign_keys
from snaketune.config.schema_nodes import Loader, SchemaNode, json_schema, key_paths, root
from snaketune.errors import ConfigError

CLOSED = {"[": "]", "{": "}", '"': '"', "'": "'"}


class _UniqueKeys(Loader):  # type: ignore[misc, valid-type]
    """Loader that refuses a key which stands twice in one mapping; YAML itself would take the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in first and isinstance(key, yaml.ScalarNode):
                raise _DuplicateKey(key.value, first[key.value], line)
            first[str(key.value)] = line
        return super().construct_mapping(node, deep)


class _DuplicateKey(Exception):
    def __init__(self, key: str, first: int, line: int) -> None:
        super().__init__(key)
        self.key, self.first, self.line = key, first, line


def read(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; ConfigError where it cannot be read or is no mapping."""
    try:
        text = Path(path).read_bytes().decode()
        found = yaml.load(text, _UniqueKeys)
    except OSError as error:
        raise ConfigError(f"the configuration cannot be read ({error.strerror})", where=str(path)) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError("this is not UTF-8 text", where=f"{path}:{line}", fix="Save the file as UTF-8") from None
    except _DuplicateKey as error:
        raise ConfigError(
            f'"{error.key}" stands twice, first in line {error.first}',
            where=f"{path}:{error.line}",
            why="Only one of the two could count",
            fix="Delete one of them",
        ) from None
    except yaml.YAMLError as error:
        raise _explain_yaml(error, text, path) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError("a configuration is a list of `key: value` lines", where=str(path))
    return found


def _explain_yaml(error: yaml.YAMLError, text: str, path: str | Path) -> ConfigError:
    """Return what is wrong in the line where it is wrong, which may be above the one where YAML noticed it."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return ConfigError(f"this is not valid YAML: {str(error).splitlines()[0]}", where=str(path))
    lines = text.splitlines()
    opened = getattr(error, "context_mark", None)
    for number in range(min(mark.line, len(lines) - 1), -1, -1):
        if found := _fault(lines[number]):
            return _error(path, number, *found)
        if lines[number].strip() and number < mark.line:
            break
    problem, context = getattr(error, "problem", None) or "", getattr(error, "context", None) or ""
    start = lines[opened.line][opened.column :][:1] if opened and opened.line < len(lines) else ""
    if opened and start and re.search("flow|scalar", context):
        return _error(
            path, opened.line, f"`{start}` is opened here and never closed", f"Add a {CLOSED.get(start, start)}"
        )
    if re.search("expected <block end>|did not find expected (key|'-')|mapping values", problem):
        what = "this line does not stand under the ones before it"
        return _error(path, mark.line, what, "Keys of one section begin in the same column")
    return _error(path, mark.line, f"this is not valid YAML: {problem}", "Correct that line, or the one before it")


def _fault(line: str) -> tuple[str, str] | None:
    """Return what is wrong in a line taken by itself, and what to do; None where nothing is."""
    bare = line.split(" #")[0].rstrip()
    if not bare.strip() or bare.lstrip().startswith("#"):
        return None
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab stands where only spaces may", "Put two spaces in the place of each tab"
    if re.match(r"\s*-[A-Za-z_{]", bare):
        return "a space is missing after the dash", f"Write {bare.strip().replace('-', '- ', 1)}"
    if re.match(r"\s*[A-Za-z_]\w*:[^\s:]", bare):
        return "a space is missing after the colon", f"Write {re.sub(r':(?=[^ ])', ': ', bare.strip(), count=1)}"
    if re.match(r"\s*[A-Za-z_]\w*( +\S+)?$", bare):
        key, _, value = bare.strip().partition(" ")
        return f"a colon is missing after `{key}`", f"Write {key}: {value}".rstrip()
    if re.match(r"\s*(- +)?[A-Za-z_]\w*: +[^\s\"'{\[|>&*!].*: ", f"{bare} "):
        return "a text with a colon and a space in it needs quotes", 'Write it as key: "..."'
    return None


def _error(path: str | Path, line: int, what: str, fix: str) -> ConfigError:
    return ConfigError(what, where=f"{path}:{line + 1}", fix=fix)


__all__ = ["canonical", "complete", "did_you_mean", "keys_allowed", "read", "suggest_key", "validate_value"]

RESERVED_RUN_NAMES = ("models", "logs", "runs.html", "runs.json")  # in results, beside the runs
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
LONGEST_VALUE = 60  # characters of a wrong value that a message quotes
LONGEST_LIST = 80  # characters of the keys that a message lists
MOST_NAMED = 3  # keys that a message asks about
ABOUT_AS_NEAR = 0.1  # how much less similar than the nearest name the others are


def complete(given: Mapping[str, object]) -> dict[str, Any]:
    """Return the validated configuration: numbers written as text turned into numbers, every default filled in.

    Raises ConfigError for the first mistake, with the key's path, what is allowed, and a near miss if there is one.
    """
    resolved: dict[str, Any] = _apply_defaults(copy.deepcopy(dict(given)), root())
    _check(resolved, json_schema())
    if resolved["run"] in RESERVED_RUN_NAMES:
        raise ConfigError(
            f'"{resolved["run"]}" is taken', where="run", why="results holds it for all runs", fix="Choose another name"
        )
    _check_split(resolved["data"]["split"])
    return resolved


def validate_value(value: object, key: str, where: str) -> Any:
    """Return the value of one key, such as train.rank, as `complete` would; ConfigError at `where` if not allowed."""
    node, rule = root(), json_schema()
    for part in key.split("."):
        node, rule = node.properties[part], rule["properties"][part]
    resolved = _apply_defaults(copy.deepcopy(value), node)
    _check(resolved, rule, (where,))
    return resolved


def _apply_defaults(value: Any, node: SchemaNode) -> Any:
    """Return `value` with text such as `5e-5` made a number where one is wanted, and all defaults below it."""
    value = _parse_number(value, node)
    if isinstance(value, dict):
        for key, below in node.properties.items():
            if key in value:
                value[key] = _apply_defaults(value[key], below)
            elif below.default is not msgspec.UNSET:
                value[key] = _apply_defaults(copy.deepcopy(below.default), below)
        if isinstance(node.additional_properties, SchemaNode):
            for key in value.keys() - node.properties.keys():
                value[key] = _apply_defaults(value[key], node.additional_properties)
    elif isinstance(value, list) and node.items:
        value = [_apply_defaults(item, node.items) for item in value]
    container = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else ""
    for choice in node.any_of:
        value = _apply_defaults(value, choice) if container in choice.types else _parse_number(value, choice)
    return value


def _parse_number(value: Any, node: SchemaNode) -> Any:
    """Return the number that a text such as `5e-5`, which YAML does not read as one, stands for."""
    types = node.types
    if isinstance(value, str) and NUMBER.fullmatch(value) and {"number", "integer"} & set(types):
        if "string" in types:
            return value
        number = float(value)
        return int(number) if number == math.floor(number) and "integer" in types else number
    if isinstance(value, int) and not isinstance(value, bool) and "number" in types and "integer" not in types:
        return float(value)  # 1 and 1.0 are the same setting, and must have the same canonical form
    return value


def _check(value: object, rule: Mapping[str, object], at: Iterable[Any] = ()) -> None:
    import jsonschema

    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _matches})(rule)
    errors = sorted(validator.iter_errors(value), key=lambda e: (len(e.absolute_path), str(e.json_path)))
    if errors:
        raise _explain(errors[0], at)
    _check_finite(value, tuple(at))


def _check_split(split: Mapping[str, float]) -> None:
    total = sum(split[name] for name in ("train", "valid", "test"))
    if abs(total - 1) > 1e-6:
        raise ConfigError(
            f"the shares of train, valid and test add up to {total:g}, not 1",
            where="data.split",
            fix="Write for example {train: 0.8, valid: 0.1, test: 0.1}",
        )


def _matches(_validator: Any, pattern: str, instance: Any, _rule: object) -> Iterator[Any]:
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


def _explain(error: Any, at: Iterable[Any]) -> ConfigError:
    """Return one jsonschema error as a sentence with the key's path and what is allowed."""
    path, node = (*at, *error.absolute_path), msgspec.convert(error.schema, SchemaNode)
    if error.validator == "additionalProperties":
        unknown = next(key for key in error.instance if key not in node.properties)
        return ConfigError(
            f"there is no such key{suggest_key((*path, unknown), node.properties)}",
            where=_path([*path, unknown]),
            why="An unknown key would have no effect",
            fix=keys_allowed(node.properties, _without_indices(path).partition(".")[0]),
        )
    how_to_write = _how_to_write(error.instance, node)
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return ConfigError("this key is missing", where=_path([*path, missing]), fix=how_to_write or "Add it")
    shown = json.dumps(error.instance, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= LONGEST_VALUE else shown[: LONGEST_VALUE - 3] + "..."
    hint = _suggest_value(path, error.instance, node)
    fix = how_to_write or f"Allowed: {node.allowed()}"
    return ConfigError(f"{shown} is not allowed{hint}", where=_path(path), fix=fix)


def _how_to_write(value: object, node: SchemaNode) -> str | None:
    """Return how a bare value is written where a mapping, or a list of mappings, is wanted; None elsewhere."""
    wants_list = node.type == "array"
    entry = node.items if wants_list else node
    if wants_list and isinstance(value, dict):
        return f"Write it as an entry of a list: [{_short_yaml(value)}]"
    if not entry or not entry.bare_value or not isinstance(value, str):
        return None
    written = "{" + f"{entry.bare_value}: {value}" + "}"
    return f"Write [{written}]" if wants_list else f"Write {written}"


def _short_yaml(value: object) -> str:
    written = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=1000).strip()
    return written if len(written) <= 100 else "{...}"


def _suggest_value(path: Iterable[Any], value: object, node: SchemaNode) -> str:
    known = foreign_keys.known_value(_without_indices(path), value)
    return f'; did you mean "{known}"?' if known else did_you_mean(value, node.enum or ())


def suggest_key(path: Iterable[Any], known: Iterable[str]) -> str:
    """Return `; did you mean "x"?` for an unknown key at `path`, beside which the keys `known` are allowed.

    Looks for the key's name in earlier versions and in other tools, then for a near miss here, then in other sections.
    """
    here, _, key = _without_indices(path).rpartition(".")
    ours = foreign_keys.our_key(here, key)
    candidates = [ours] if ours else key_paths().get(key, [])
    if not candidates:
        candidates = [f"{here}.{near}".lstrip(".") for near in _nearest(key, list(known))]
    if not candidates and (near := difflib.get_close_matches(key, key_paths(), n=1, cutoff=0.8)):
        candidates = key_paths()[near[0]]
    names = [f'"{_seen_from(here, candidate)}"' for candidate in candidates[:MOST_NAMED]]
    return f"; did you mean {' or '.join(names)}?" if names else ""


def _nearest(key: str, known: Sequence[str]) -> list[str]:
    """Return the names that `key` may be a slip of, the nearest first; only those that are about as near as that."""
    near = difflib.get_close_matches(key, known, n=MOST_NAMED, cutoff=0.6)
    ratios = {name: difflib.SequenceMatcher(None, name, key).ratio() for name in near}
    return [name for name in near if ratios[name] > ratios[near[0]] - ABOUT_AS_NEAR]


def keys_allowed(known: Iterable[str], section: str) -> str:
    """Return where an unknown key may be looked up: the keys that are allowed beside it where they are few, else the
    headings of the page that has all of them; section: the top-level key, or several, empty for the top level itself.
    """
    listed = ", ".join(known)
    if len(listed) <= LONGEST_LIST:
        return f"Keys allowed here: {listed}"
    under = f", under {section}" if section else ": each is a heading there"
    return f"docs/configuration.md has the keys that are allowed here{under}"


def _seen_from(section: str, path: str) -> str:
    """Return a key's path as it is written inside `section`: without the section's own name."""
    return path.removeprefix(f"{section}.")


def _without_indices(path: Iterable[Any]) -> str:
    return ".".join(str(part) for part in path if not isinstance(part, int))


def did_you_mean(word: Any, known: Iterable[Any]) -> str:
    """Return `; did you mean "x"?` for the nearest of `known`, or nothing."""
    names = [name for name in known if isinstance(name, str)]
    near = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def _path(parts: Iterable[Any]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "configuration"


def canonical(value: Any) -> str:
    """Return one string for a setting, the same for the same meaning: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
