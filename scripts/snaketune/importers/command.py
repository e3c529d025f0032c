"""Makes a configuration of ours from another tool's: `make import FROM=path NAME=mine`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from snaketune.config import schema
from snaketune.errors import ConfigError, UserError
from snaketune.files import write_text
from snaketune.importers import axolotl, llama_factory, mlx_lm, trl_peft
from snaketune.importers import page as pages
from snaketune.importers.draft import Draft, Theirs

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
EXAMPLE = "make import FROM=axolotl.yaml NAME=mine"
COMMANDS = {"mlx_lm": "mlx-lm", "llamafactory-cli": "LLaMA-Factory", "trl": "TRL"}
LIKELY_KEYS = {
    "Axolotl": {"base_model", "micro_batch_size", "sequence_len", "val_set_size", "lora_r", "datasets", "num_epochs"},
    "LLaMA-Factory": {"stage", "finetuning_type", "template", "cutoff_len", "lora_target", "dataset", "lora_rank"},
    "TRL": {
        "dataset_name",
        "use_peft",
        "dataset_train_split",
        "assistant_only_loss",
        "dataset_text_field",
        "max_length",
    },
    "mlx-lm": {
        "lora_parameters",
        "fine_tune_type",
        "iters",
        "steps_per_eval",
        "adapter_path",
        "hf_dataset",
        "mask_prompt",
    },
    "PEFT": {"peft_type", "base_model_name_or_path", "r", "target_modules", "task_type"},
}
IMPORTERS: Mapping[str, Callable[[Theirs, Draft], None]] = {
    "Axolotl": axolotl.import_config,
    "LLaMA-Factory": llama_factory.import_config,
    "TRL": trl_peft.import_config,
    "PEFT": trl_peft.import_adapter,
    "mlx-lm": mlx_lm.import_config,
}


class Given(NamedTuple):
    """Another tool's configuration as it was read; name: what a person calls it."""

    tool: str
    keys: Theirs
    folder: Path
    name: str


class Imported(NamedTuple):
    """What an import has written. configuration is None where something was refused."""

    draft: Draft
    page: Path
    configuration: Path | None


def run(source: str, name: str, without: tuple[str, ...] = (), folder: str | Path = ".") -> Imported:
    """Write `<name>.import.md`, and `<name>.yaml` unless something is refused.

    source: a file, an adapter's folder, or a command line; without: refused keys that the person goes without.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f'"{name}" cannot be a run\'s name' if name else "the new configuration needs a name",
            where="NAME",
            fix=f"{EXAMPLE}; a name has letters, digits, dots, hyphens and underscores",
        )
    target, page = Path(folder) / f"{name}.yaml", Path(folder) / f"{name}.import.md"
    if target.exists():
        raise ConfigError("this file exists", where=str(target), fix="Choose another NAME, or remove the file")
    given = read(source)
    draft = Draft(given.tool, given.folder, without)
    IMPORTERS[given.tool](given.keys, draft)
    if not draft.refused and (wrong := pages.problems(draft, name)):
        draft.refuse("value", wrong.partition(":")[0], wrong, "Correct it in their file", is_final=True)
    is_written = not draft.refused
    if is_written:
        write_text(target, pages.configuration(draft, name, given.name))
    write_text(page, pages.page(draft, name, given.name, is_written=is_written))
    return Imported(draft, page, target if is_written else None)


def read(source: str) -> Given:
    """Return the configuration that a file, a folder or a command line holds, and whose it is."""
    path = Path(source).expanduser()
    if not source:
        raise ConfigError("there is nothing to import", where="FROM", fix=EXAMPLE)
    if " " in source and not path.exists():
        return _command_line(source, Path(), "the command line")
    if not path.exists():
        raise ConfigError("there is no such file or folder", where=source, fix="Give the path of the other tool's file")
    if path.is_dir():
        return _read_folder(path)
    if path.suffix in (".bin", ".pt", ".pkl"):
        raise ConfigError(
            "this is a pickle, which is a program and not data",
            where=source,
            why="Reading it would run whatever it holds",
            fix="Give the YAML of that training, or the adapter's folder with its adapter_config.json",
        )
    if path.suffix in (".sh", ".txt", ""):
        return _command_line(path.read_text(encoding="utf-8"), path.parent, path.name)
    return _recognized(_read_keys(path), path)


def _read_folder(path: Path) -> Given:
    for name in ("adapter_config.json", "lora_config.yaml", "config.yaml", "config.yml"):
        if (path / name).is_file():
            return _recognized(_read_keys(path / name), path / name)
    raise ConfigError(
        "this folder holds no adapter_config.json and no YAML of a training",
        where=str(path),
        fix="Name the file itself",
    )


def _read_keys(path: Path) -> Theirs:
    if path.suffix != ".json":
        return schema.read(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"this is not valid JSON: {error}", where=str(path), fix="Correct it") from None
    if not isinstance(found, dict):
        raise ConfigError("a configuration is an object with named values", where=str(path))
    return found


def _recognized(keys: Theirs, path: Path) -> Given:
    """Say whose configuration it is, by the keys that only one tool has."""
    hits = {tool: len(known & keys.keys()) for tool, known in LIKELY_KEYS.items()}
    best = max(hits, key=lambda tool: hits[tool])
    if not hits[best]:
        raise ConfigError(
            "whose configuration this is cannot be told from its keys",
            where=str(path),
            fix="Give a configuration of Axolotl, LLaMA-Factory, TRL or mlx-lm, or a PEFT adapter's folder; "
            f"this one has {', '.join(list(map(str, keys))[:8]) or 'no keys'}",
        )
    return Given(best, keys, path.parent, path.name)


def _command_line(text: str, folder: Path, name: str) -> Given:
    """Read the options of a command line; options in the file that `--config` names come first."""
    tool = next((tool for command, tool in COMMANDS.items() if command in text), None)
    if tool is None:
        raise ConfigError(
            "no command of mlx_lm.lora, llamafactory-cli or trl is in it",
            where=name,
            fix=f"Give a file, as in {EXAMPLE}",
        )
    start = min(text.find(command) for command in COMMANDS if command in text)
    options = mlx_lm.command_line(text[start:])
    named = options.pop("config", None) or _first_yaml(text[start:])
    if named is None:
        return Given(tool, options, folder, name)
    path = next((one for one in (Path(str(named)), folder / str(named)) if one.is_file()), None)
    if path is None:
        raise ConfigError(
            f"its options are in {named}, which is not there", where=name, fix="Run this where that file is"
        )
    return Given(tool, {**_read_keys(path), **options}, path.parent, path.name)


def _first_yaml(text: str) -> str | None:
    """Return the file of `llamafactory-cli train FILE`."""
    found = re.search(r"\btrain\s+(\S+\.ya?ml)\b", text)
    return found[1] if found else None


def main(arguments: list[str]) -> int:
    """Run as a command: FROM NAME WITHOUT."""
    source, name, without = [*arguments, "", "", ""][:3]
    try:
        made = run(source, name, tuple(without.replace(",", " ").split()))
    except UserError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        return 1
    draft = made.draft
    if made.configuration:
        print(f"{made.configuration} is written: {len(draft.taken)} keys of {draft.tool} taken over, and")
        print(f"{len(draft.written_out)} defaults of theirs written out. {made.page} says what became of each key.")
        print(f"Next: snakemake preview --configfile {made.configuration}")
        return 0
    for one in draft.refused:
        print(f"snaketune: {one.key}: {one.effect}. {one.fix}.", file=sys.stderr)
    words = {one.key.partition(" ")[0] for one in draft.refused if not one.is_final}
    print(f"snaketune: nothing is written but {made.page}, which has the whole list.", file=sys.stderr)
    if words and not any(one.is_final for one in draft.refused):
        keys = " ".join(sorted(words))
        print(f'To go without: make import FROM="{source}" NAME={name} WITHOUT="{keys}"', file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
