"""Named experiments: `experiments` and `grid` of the configuration, expanded into complete settings.

An override names keys of the `train` and `model` sections, whose names do not meet: `{rank: 8, base: demo}`. Every
entry of `experiments` is one experiment, and so is every crossing of the lists of `grid`; without either there is one
called `main`. Runs while the Snakefile is parsed, so each distinct value is checked against the schema once.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from snaketune.config import hosts
from snaketune.config import schema as configuration
from snaketune.errors import ConfigError

MAIN = "main"
SECTIONS = ("train", "model")
LONGEST_NAME = 60
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Checker = Callable[[str, Any, str], tuple[str, Any]]


def expand(config: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """The experiments of a complete configuration, as name -> {"train": section, "model": section}, in its order.

    Raises ConfigError for an unknown key, a value that the schema refuses, a name that cannot be a folder's, and two
    experiments with the same settings, which would train the same thing twice.
    """
    sections = {name: config[name] for name in SECTIONS}
    checked = _checker()
    found: dict[str, dict[str, dict[str, Any]]] = {}
    taken: set[str] = set()
    for name, where, override in _overrides(config, checked):
        _check_name(name, where, taken)
        found[name] = _settings(sections, override, where, checked)
    _check_distinct(found)
    hosts.check(config["train"])
    return found or {MAIN: copy.deepcopy(sections)}


def differences(experiments: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What tells experiments apart: name -> {key: value} of the keys that are not the same in all of them."""
    flat = {
        name: {key: value for section in SECTIONS for key, value in settings[section].items()}
        for name, settings in experiments.items()
    }
    keys = list(dict.fromkeys(key for settings in flat.values() for key in settings))
    differ = [key for key in keys if len({configuration.canonical(one.get(key)) for one in flat.values()}) > 1]
    return {name: {key: settings.get(key) for key in differ} for name, settings in flat.items()}


def _overrides(config: dict[str, Any], checked: Checker) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each experiment's name, the configuration key it stands under, and its override."""
    for name, override in config["experiments"].items():
        yield str(name), f"experiments.{name}", override or {}
    grid = {
        key: list({configuration.canonical(v): v for v in (checked(key, v, "grid")[1] for v in values)}.values())
        for key, values in config["grid"].items()
    }
    for values in itertools.product(*grid.values()) if grid else ():
        point = dict(zip(grid, values, strict=True))
        yield _point_name(point), "grid", point


def _checker() -> Checker:
    """A function from (key, value, where) to (section, value as the schema wants it), remembering what it has seen."""
    properties = configuration.schema()["properties"]
    rules = {key: (section, rule) for section in SECTIONS for key, rule in properties[section]["properties"].items()}
    seen: dict[tuple[str, str], tuple[str, Any]] = {}

    def checked(key: str, value: Any, where: str) -> tuple[str, Any]:
        if key not in rules:
            raise ConfigError(
                f"there is no such key{configuration.did_you_mean(key, rules)}",
                where=f"{where}.{key}",
                why="An experiment overrides keys of train and model",
                fix=f"Keys allowed here: {', '.join(rules)}",
            )
        known = (key, configuration.canonical(value))
        if known not in seen:
            section, rule = rules[key]
            seen[known] = section, configuration.checked(value, rule, f"{where}.{key}")
        return seen[known]

    return checked


def _settings(
    sections: dict[str, dict[str, Any]],
    override: dict[str, Any],
    where: str,
    checked: Checker,
) -> dict[str, dict[str, Any]]:
    settings = {name: dict(section) for name, section in sections.items()}
    for key, given in override.items():
        section, value = checked(key, given, where)
        settings[section][key] = value
    if "epochs" in override and "max_steps" not in override:
        settings["train"]["max_steps"] = None  # max_steps wins over epochs, and would make this override mean nothing
    if "base" in override and "revision" not in override:
        settings["model"]["revision"] = "main"  # a pinned commit belongs to the model it was written for
    hosts.check(settings["train"], where)
    return settings


def _point_name(point: dict[str, Any]) -> str:
    """A grid point's name from its settings alone, so that it stays when values are added: `rank-8_alpha-16`."""
    written = "_".join(f"{key}-{_word(value)}" for key, value in point.items())
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", written)
    if name == written and len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(configuration.canonical(point).encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9].rstrip('-.')}-{digest}"


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(str(item) for item in value)
    if isinstance(value, dict):
        return "-".join(str(item) for item in value.values())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_name(name: str, where: str, taken: set[str]) -> None:
    if len(name) > LONGEST_NAME or not SAFE_NAME.fullmatch(name):
        raise ConfigError(
            f'"{name}" cannot be an experiment\'s name',
            where=where,
            why="It names a folder",
            fix=f"Use up to {LONGEST_NAME} letters, digits, dots, hyphens and underscores, a letter or digit first",
        )
    if name.casefold() in taken:  # one folder, where the file system takes capitals for small letters
        raise ConfigError(f'two experiments are called "{name}"', where=where, fix="Rename one of them")
    taken.add(name.casefold())


def _check_distinct(experiments: dict[str, dict[str, dict[str, Any]]]) -> None:
    seen: dict[str, str] = {}
    for name, settings in experiments.items():
        other = seen.setdefault(configuration.canonical(settings), name)
        if other != name:
            raise ConfigError(
                f'the experiments "{other}" and "{name}" have the same settings',
                where="experiments",
                why="The same adapter would be trained twice",
                fix="Leave one of them out",
            )
