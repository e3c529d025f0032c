"""What differs between two versions of a step's settings, as keys of the configuration with their values.

A step's settings hold parts of the configuration under names of the step's own, such as `settings.bleu_tokenizer` for
evaluate.bleu_tokenizer. Which key that is follows from the end of the path and from the value that the key has now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from snaketune.config.schema_nodes import key_paths

ABSENT = msgspec.UNSET
OWN_FILES = "results/"
LONGEST_VALUE = 30  # characters of a value in a message
ENTRY_NAMES = ("name", "experiment", "path", "hub")  # keys that tell the entries of a list apart
Path = tuple[str, ...]


class Difference(NamedTuple):
    """A setting with its values before and now; ABSENT where it did not exist. `[name]` is an entry of a list."""

    path: Path
    before: Any
    now: Any


def changed_keys(before: object, now: object, config: Mapping[str, object]) -> list[str]:
    """Return such as `train.rank 16 -> 32` for each setting that differs; config: the configuration as it is now."""
    found = [_in_words(one, config) for one in differences(before, now)]
    return list(dict.fromkeys(found))


def differences(before: object, now: object, path: Path = ()) -> Iterator[Difference]:
    """Return the innermost settings that differ."""
    before, now = _by_name(before, now), _by_name(now, before)
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key, ABSENT), now.get(key, ABSENT), (*path, str(key)))
    elif before != now and not _is_own_file(now if before is ABSENT else before):
        yield Difference(path, before, now)


def _is_own_file(value: object) -> bool:
    """Whether a setting is the name of a file of the run, which follows from other settings."""
    return isinstance(value, str) and value.startswith(OWN_FILES)


def _by_name(value: object, other: object) -> object:
    """Return a list of mappings as a mapping by their names; where the names do not differ, by their places."""
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        return value
    if not value:
        return {} if isinstance(other, list) and other and isinstance(other[0], Mapping) else value
    for key in ENTRY_NAMES:
        names = [entry.get(key) for entry in value]
        if None not in names and len(set(names)) == len(names):
            return {f"[{name}]": entry for name, entry in zip(names, value, strict=True)}
    return {f"[{index}]": entry for index, entry in enumerate(value)}


def _in_words(difference: Difference, config: Mapping[str, object]) -> str:
    path, before, now = difference
    found = config_key(difference, config)
    if found is None:
        return f"{'.'.join(path)} {_change(before, now)}"
    key, length = found
    rest = path[length:]
    if len(rest) == 1 and rest[0].startswith("[") and ABSENT in (before, now):
        return f"{key}: {rest[0][1:-1]} is {'new' if before is ABSENT else 'gone'}"
    if isinstance(before, list) and isinstance(now, list) and len(before) != len(now):
        new, gone = [one for one in now if one not in before], [one for one in before if one not in now]
        more = [f"{_short(one)} is new" for one in new] + [f"{_short(one)} is gone" for one in gone]
        return f"{key}: {', '.join(more)}" if more else f"{key} changed"
    if rest or before is ABSENT:
        value = _short(_value_at(config, key))
        return f"{key} changed" if "..." in value else f"{key} is now {value}"
    return f"{key} {_change(before, now)}"


def config_key(difference: Difference, config: Mapping[str, object]) -> tuple[str, int] | None:
    """Return the key that a step's setting comes from, and how much of its path that is; None where there is none."""
    path = difference.path
    for length in range(len(path), 0, -1):
        below_a_key = length < len(path)
        names = [part for part in path[:length] if not part.startswith("[")]
        if path[length - 1].startswith("["):
            continue
        best: tuple[int, str] | None = None
        for candidate in key_paths().get(path[length - 1], []):
            same = _common_end(names, candidate.split("."))
            certain = same > 1 or same == len(candidate.split(".")) == len(names)
            if certain or below_a_key or _value_at(config, candidate) == difference.now:
                best = max(filter(None, (best, (same, candidate))))
        if best:
            return best[1], length
    return None


def _common_end(names: list[str], others: list[str]) -> int:
    count = 0
    for one, other in zip(reversed(names), reversed(others), strict=False):
        if one != other:
            break
        count += 1
    return count


def _value_at(config: Mapping[str, object], path: str) -> object:
    value: object = config
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return ABSENT
        value = value[part]
    return value


def _change(before: object, now: object) -> str:
    shown = [_short(value) for value in (before, now)]
    return "changed" if "..." in shown or shown[0] == shown[1] else f"{shown[0]} -> {shown[1]}"


def _short(value: object) -> str:
    """Return a value as it is written in the configuration; `...` for a long one."""
    if value is ABSENT:
        return "none"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, str):
        text = value if value.isprintable() and value.strip() == value else repr(value)
        return _cut(text or '""')
    if isinstance(value, Mapping):
        return _cut("{" + ", ".join(f"{key}: {_short(below)}" for key, below in value.items()) + "}")
    if isinstance(value, list):
        return _cut("[" + ", ".join(map(_short, value)) + "]")
    return msgspec.json.encode(value).decode()


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else "..."
