"""Reads a configuration's YAML; a slip is told with file, line and what is wrong, in words of the line itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from snaketune.config.schema_nodes import Loader
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
        raise _explain(error, text, path) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError("a configuration is a list of `key: value` lines", where=str(path))
    return found


def _explain(error: yaml.YAMLError, text: str, path: str | Path) -> ConfigError:
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
