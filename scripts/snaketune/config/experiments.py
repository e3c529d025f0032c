"""Named experiments: `experiments` and `grid` of the configuration, expanded into complete settings; and their hosts.

An override names keys of the `train` and `model` sections, whose names do not meet, and the training's `seed`:
`{rank: 8, base: demo, seed: 2}`. Every entry of `experiments` is one experiment, and so is every crossing of the lists
of `grid`; without either there is one called `main`. A list of seeds in `grid` is crossed with `experiments` too. Runs
while the Snakefile is parsed, so each distinct value is checked against the schema once.
`train.workers` is checked against `train.hosts`, over which the worker processes of a training are spread.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from snaketune.config import schema as configuration
from snaketune.config.schema_nodes import root
from snaketune.config.sections import ModelConfig, RunConfig, TrainConfig
from snaketune.errors import ConfigError
from snaketune.files import read_json

LOCALHOST = "127.0.0.1"
Hosts = str | list[str] | None  # a hostfile of mlx.launch, addresses, or this machine


def check_hosts(workers: int, hosts: Hosts, section: str = "train") -> None:
    """Raise ConfigError where so many workers do not fit their hosts."""
    count = len(host_list(hosts))
    if workers % count:
        raise ConfigError(
            f"{workers} workers cannot be spread evenly over {count} hosts",
            where=f"{section}.workers",
            fix=f"Set train.workers to {count}, or to a multiple of it",
        )
    if isinstance(hosts, str) and workers != count:
        raise ConfigError(
            f"the hostfile names {count} processes, and train.workers is {workers}",
            where=f"{section}.hosts",
            fix=f"Set train.workers to {count}; a host that runs several is named several times in it",
        )


def worker_hosts(workers: int, hosts: Hosts) -> list[str]:
    """The host of each worker, by rank."""
    names = host_list(hosts)
    return [host for host in names for _ in range(workers // len(names))]


def launch_arguments(workers: int, hosts: Hosts) -> list[str]:
    """The options of mlx.launch that say where the workers run."""
    if isinstance(hosts, str):
        return ["--hostfile", hosts]
    names = host_list(hosts)
    return ["--hosts", ",".join(names), "-n", str(workers // len(names))]


def host_list(hosts: Hosts) -> list[str]:
    """The hosts as they are given; this machine where none are."""
    if hosts is None:
        return [LOCALHOST]
    if isinstance(hosts, list):
        return hosts
    try:
        content = read_json(Path(hosts))
        return [host["ssh"] for host in (content["hosts"] if isinstance(content, dict) else content)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"this hostfile cannot be read ({type(error).__name__}: {error})",
            where="train.hosts",
            fix="Give a list of hosts, or a file as `mlx.distributed_config` writes it",
        ) from None


MAIN = "main"
SECTIONS = {"train": TrainConfig, "model": ModelConfig}
LORA_KEYS = ("rank", "alpha", "rslora", "dropout", "target_modules", "num_layers")
"""Keys of `train` that an adapter of layers has. Experiments may take them from `train`, where others need them."""
SEED = "seed"
"""The one key of an override that stands in no section; it is of the training alone: rows and answers stay the same."""
LONGEST_NAME = 60
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Override = Mapping[str, object]  # keys of train and model, with values as they stand in the configuration
Validator = Callable[[str, object, str], tuple[str, object]]


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """A named variation of the `train` and `model` sections, complete, and the seed of its training."""

    name: str
    train: TrainConfig
    model: ModelConfig
    seed: int

    @property
    def settings(self) -> dict[str, object]:
        """The keys of both sections and the seed side by side, as in an override."""
        return msgspec.to_builtins(self.train) | msgspec.to_builtins(self.model) | {SEED: self.seed}


def expand(config: RunConfig) -> dict[str, Experiment]:
    """Return the experiments of a configuration by name, in its order.

    Raises ConfigError for an unknown key, a value that the schema refuses, a name that cannot name a folder, and two
    experiments with the same settings, which would train the same thing twice.
    """
    validate = _validator()
    check_hosts(config.train.workers, config.train.hosts)
    base = Experiment(name=MAIN, train=config.train, model=config.model, seed=config.seed)
    found: dict[str, Experiment] = {}
    used_names: set[str] = set()
    for name, where, override in _overrides(config, validate):
        _check_name(name, where, used_names)
        found[name] = _overridden(base, name, override, where, validate)
    _check_distinct(found.values())
    defaults = configuration.validate_value({}, "train", "train")
    own = msgspec.to_builtins(config.train)
    changed = [key for key in own if own[key] != defaults[key]]
    if found:
        _check_keys({one.train.method for one in found.values()}, changed, "train")
    else:
        _check_method(config.train, changed, "train")
    return found or {MAIN: base}


def methods(experiments: Mapping[str, Experiment]) -> dict[str, list[str]]:
    """The experiments that differ in their seeds alone, by a name without the seed, in their order."""
    groups: dict[str, list[Experiment]] = {}
    for one in experiments.values():
        groups.setdefault(configuration.canonical(one.settings | {SEED: None}), []).append(one)
    found = {}
    for group in groups.values():
        name = group[0].name
        if len(group) > 1:
            name = re.sub(rf"(^|_){SEED}-{group[0].seed}$", "", name) or MAIN
        found[name if name not in found else group[0].name] = [one.name for one in group]
    return found


def differences(experiments: Mapping[str, Override]) -> dict[str, dict[str, object]]:
    """Return the settings that are not the same in all experiments, by name; given all settings of each by name."""
    keys = list(dict.fromkeys(key for settings in experiments.values() for key in settings))
    differ = [key for key in keys if len({configuration.canonical(one.get(key)) for one in experiments.values()}) > 1]
    return {name: {key: settings.get(key) for key in differ} for name, settings in experiments.items()}


def _overrides(config: RunConfig, validate: Validator) -> Iterator[tuple[str, str, Override]]:
    """Each experiment's name, the configuration key it stands under, and its override."""
    grid = {
        key: list({configuration.canonical(v): v for v in (validate(key, v, "grid")[1] for v in values)}.values())
        for key, values in sorted(config.grid.items(), key=lambda item: item[0] == SEED)  # it ends the names
    }
    for name, override in config.experiments.items():
        own = override or {}
        points = [{SEED: seed} for seed in grid.get(SEED, []) if SEED not in own]
        for point in points or [{}]:
            named = f"{name}_{grid_point_name(point)}" if point else str(name)
            yield named, f"experiments.{name}", {**own, **point}
    if config.experiments and set(grid) == {SEED}:
        return  # which says nothing but how often the named ones are trained
    for values in itertools.product(*grid.values()) if grid else ():
        point = dict(zip(grid, values, strict=True))
        yield grid_point_name(point), "grid", point


def _validator() -> Validator:
    """A function from (key, value, where) to (section, value as the schema wants it), remembering what it has seen."""
    sections = {key: section for section in SECTIONS for key in root().properties[section].properties} | {SEED: ""}
    seen: dict[tuple[str, str], tuple[str, object]] = {}

    def validate(key: str, value: object, where: str) -> tuple[str, object]:
        if key not in sections:
            raise ConfigError(
                f"there is no such key{suggest_override(key, sections)}",
                where=f"{where}.{key}",
                why="An experiment overrides keys of train and model, and the seed",
                fix=configuration.keys_allowed(sections, " and ".join([*SECTIONS, SEED])),
            )
        known = (key, configuration.canonical(value))
        if known not in seen:
            section = sections[key]
            named = f"{section}.{key}" if section else key
            seen[known] = section, configuration.validate_value(value, named, f"{where}.{key}")
        return seen[known]

    return validate


def suggest_override(key: str, known: Iterable[str]) -> str:
    """Return `; did you mean "x"?` for an unknown key of an override, which names keys of both sections plainly."""
    return configuration.suggest_key(("train", key), known).replace('"model.', '"')


def _overridden(base: Experiment, name: str, override: Override, where: str, validate: Validator) -> Experiment:
    sections: dict[str, dict[str, object]] = {
        "train": msgspec.to_builtins(base.train),
        "model": msgspec.to_builtins(base.model),
        "": {SEED: base.seed},
    }
    for key, given in override.items():
        section, value = validate(key, given, where)
        sections[section][key] = value
    if "epochs" in override and "max_steps" not in override:
        sections["train"]["max_steps"] = None  # max_steps wins over epochs, and would make this override mean nothing
    if "base" in override and "revision" not in override:
        sections["model"]["revision"] = "main"  # a pinned commit belongs to the model it was written for
    overridden = Experiment(
        name=name,
        train=msgspec.convert(sections["train"], TrainConfig),
        model=msgspec.convert(sections["model"], ModelConfig),
        seed=msgspec.convert(sections[""][SEED], int),
    )
    check_hosts(overridden.train.workers, overridden.train.hosts, where)
    _check_method(overridden.train, override, where)
    return overridden


def _check_method(train: TrainConfig, given: Iterable[str], where: str) -> None:
    """Raise ConfigError for settings that a training's method does not have; given: the keys that were set for it."""
    if train.fsdp and (train.workers == 1 or train.method == "full"):
        raise ConfigError(
            "FSDP has nothing to spread: " + ("there is one worker" if train.workers == 1 else "no weight is frozen"),
            where=f"{where}.fsdp",
            fix="Set train.workers to 2 or more, with method: lora, dora or prompt; or set fsdp: false",
        )
    if train.method == "prompt" and train.train_on_prompts:
        raise ConfigError(
            "prompt tuning cannot train on prompts",
            where=f"{where}.train_on_prompts",
            why="The virtual tokens stand in the prompt, and the model has no output for them",
            fix="Set it to false",
        )
    _check_keys({train.method}, given, where)


def _check_keys(used: Collection[str], given: Iterable[str], where: str) -> None:
    """Raise ConfigError for a key that means something to none of the methods that are used."""
    other, meaningless = "prompt", set(given) & {"num_virtual_tokens"}
    if "prompt" in used:
        other, meaningless = "lora", set(given) & set(LORA_KEYS) if len(used) == 1 else set()
    if meaningless:
        key = min(meaningless)
        raise ConfigError(
            f"{key} means nothing to the method {' or '.join(sorted(used))}",
            where=f"{where}.{key}",
            fix=f"Leave it out, or set method: {other}",
        )


def grid_point_name(point: Override) -> str:
    """Name a grid point by its settings alone, so that the name stays when values are added: `rank-8_alpha-16`."""
    written = "_".join(f"{key}-{_word(value)}" for key, value in point.items())
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", written)
    if name == written and len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(configuration.canonical(point).encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9].rstrip('-.')}-{digest}"


def _word(value: object) -> str:
    if isinstance(value, list):
        return "-".join(str(item) for item in value)
    if isinstance(value, dict):
        return "-".join(str(item) for item in value.values())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_name(name: str, where: str, used_names: set[str]) -> None:
    if len(name) > LONGEST_NAME or not SAFE_NAME.fullmatch(name):
        raise ConfigError(
            f'"{name}" cannot be an experiment\'s name',
            where=where,
            why="It names a folder",
            fix=f"Use up to {LONGEST_NAME} letters, digits, dots, hyphens and underscores, a letter or digit first",
        )
    if name.casefold() in used_names:  # one folder, where the file system takes capitals for small letters
        raise ConfigError(f'two experiments are called "{name}"', where=where, fix="Rename one of them")
    used_names.add(name.casefold())


def _check_distinct(experiments: Iterable[Experiment]) -> None:
    seen: dict[str, str] = {}
    for one in experiments:
        other = seen.setdefault(configuration.canonical(one.settings), one.name)
        if other != one.name:
            raise ConfigError(
                f'the experiments "{other}" and "{one.name}" have the same settings',
                where="experiments",
                why="The same adapter would be trained twice",
                fix="Leave one of them out",
            )
