"""The command `snakemake` of .venv: takes the words in any order that a person would type, or answers in a sentence.

Snakemake's own option --configfile takes all words after it for configurations, a stage as well, and reads them before
anything of a workflow runs; so this happens before Snakemake is imported. The set-up writes .venv/bin/snakemake, which
calls `main`. In a folder without this workflow the words go on to Snakemake as they are.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

OPTIONS = ("--configfile", "--configfiles")
SUFFIXES = (".yaml", ".yml", ".json")
RULE = re.compile(r'^rule (\w+):\n    """(.*?)"""', re.MULTILINE | re.DOTALL)
STAGE = re.compile("(?:Stage|On request): ")  # begins the docstring of what a person may ask for
PROFILE_LINE = re.compile(r"^Using workflow specific profile profiles/default for setting .*\n", re.MULTILINE)
FLAGS = ("-n", "--dry-run", "--dryrun", "-p", "--printshellcmds", "-F", "--forceall", "-k", "--keep-going")


def main() -> None:
    """Run Snakemake with the words of the command line."""
    from_here = Path("Snakefile").is_file() and Path("rules/snakemake_patches").is_dir()
    if from_here:
        sys.path[:0] = [str(Path("scripts").absolute())]
        sys.argv[1:] = _checked(sys.argv[1:])
    with _no_garbage_collected():
        from snakemake import cli

    if from_here:
        _run(cli)
    else:
        cli.main()


@contextlib.contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Look for no garbage while modules are imported, nor later among what they made, which stays.

    Looking took a fifth of the CPU time of a dry run.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _run(cli: Any) -> None:
    """Do what the main function of snakemake.cli does, without the line that names the profile of this workflow."""
    try:
        output = io.StringIO()
        try:
            with contextlib.redirect_stderr(output):
                parser, arguments = cli.parse_args(None)
        finally:
            print(PROFILE_LINE.sub("", output.getvalue()), end="", file=sys.stderr)
        success = cli.args_to_api(arguments, parser)
    except BrokenPipeError:  # `snakemake -n | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        cli.print_exception(error)
        sys.exit(1)
    sys.exit(not success)


def _checked(words: list[str]) -> list[str]:
    """Return the words for Snakemake; ends with a sentence where they cannot be meant."""
    from snaketune.errors import UserError

    if "--list" in words or "-l" in words:
        print(stages_in_words())
        raise SystemExit(0)
    try:
        return arranged(words)
    except UserError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def arranged(words: Sequence[str]) -> list[str]:
    """Return the words with the targets first and one configuration, which exists and is YAML.

    Raises ConfigError for two configurations, for one that is missing or has a slip in it, and for an unknown stage.
    """
    before, given, after = _around_option(words)
    configurations = [word for word in given if _is_configuration(word)]
    moved = [word for word in given if not _is_configuration(word)]
    targets = [*moved, *_leading(before)]
    _check_configurations(configurations, targets)
    _check_targets(targets)
    chosen = ["--configfile", *configurations] if configurations else []
    return [*moved, *before, *after, *chosen]  # last, so that it takes no word after it for one more


def _around_option(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the words before --configfile, its values (those of all, where it is given twice), and those after it."""
    before: list[str] = []
    given: list[str] = []
    rest = list(words)
    after: list[str] = []
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option not in OPTIONS:
            (after if given else before).append(word)
            continue
        if equals:
            given.append(value)
            continue
        while rest and not rest[0].startswith("-"):
            given.append(rest.pop(0))
    return before, given, after


def _is_configuration(word: str) -> bool:
    return word.endswith(SUFFIXES) or Path(word).is_file()


def _leading(words: Sequence[str]) -> list[str]:
    """Return the words before the first option that may have a value, which would be the words after it."""
    found = []
    for word in words:
        if word.startswith("-") and word not in FLAGS:
            break
        found.append(word)
    return [word for word in found if word not in FLAGS]


def _check_configurations(configurations: Sequence[str], targets: Sequence[str]) -> None:
    from snaketune.config import schema
    from snaketune.errors import ConfigError

    misplaced = [word for word in targets if word.endswith((".yaml", ".yml")) and not word.startswith("results/")]
    if misplaced and not configurations:
        others = " ".join(word for word in targets if word not in misplaced)
        command = " ".join(f"snakemake {others} --configfile {misplaced[0]}".split())
        raise ConfigError("this is a configuration and not a stage", where=misplaced[0], fix=f"Type: {command}")
    if len(configurations) > 1:
        raise ConfigError(
            f"a run has one configuration, and these are {len(configurations)}: {', '.join(configurations)}",
            why="Snakemake would mix their settings",
            fix=f"Type: snakemake --configfile {configurations[0]}; and after it, if you want both, the other one",
        )
    for name in configurations:
        if not Path(name).is_file():
            near = schema.did_you_mean(name, map(str, Path().glob("*.y*ml")))
            raise ConfigError(
                f"there is no such configuration{near}",
                where=name,
                fix="Type its path as it is seen from here, or make one: make new NAME=... PRESET=...",
            )
        if not name.endswith(".json"):
            schema.read(name)


def _check_targets(targets: Sequence[str]) -> None:
    """A word without a dot or slash must be a rule."""
    from snaketune.config import schema
    from snaketune.errors import ConfigError

    known = rules()
    for word in targets:
        if re.fullmatch(r"\w+", word) and word not in known and not Path(word).exists():
            stages = [name for name, text in known.items() if STAGE.match(text)]
            near = schema.did_you_mean(word, stages) or schema.did_you_mean(word, known)
            raise ConfigError(f'there is no stage "{word}"{near}', fix=f"Stages: {', '.join(stages)}")


def rules() -> dict[str, str]:
    """Return the first line of each rule's docstring, by the rule's name, in the order of the chain."""
    found: dict[str, str] = {}
    text = Path("Snakefile").read_text(encoding="utf-8")
    included = re.findall(r'^include: "(.+)"', text, re.MULTILINE)
    for file in [*included, "Snakefile"]:
        found |= dict(RULE.findall(Path(file).read_text(encoding="utf-8")))
    return found


def stages_in_words() -> str:
    """Return what `snakemake --list` prints: a line for each stage."""
    stages = {name: STAGE.sub("", text) for name, text in rules().items() if STAGE.match(text)}
    width = max(map(len, stages)) + 2
    lines = [f"{name:{width}}{text[0].upper()}{text[1:]}" for name, text in stages.items()]
    return "\n".join(
        [
            *lines,
            "",
            "snakemake STAGE --configfile mine.yaml    stops after a stage; without a stage it ends with the report",
            "snakemake -n --configfile mine.yaml       says what would run, and why; nothing runs",
            "snakemake --list-rules                    lists every step",
            "Without --configfile the configuration is config.yaml, the demo.",
        ]
    )
