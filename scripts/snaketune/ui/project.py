"""The project's folder as the page may see it: runs, configurations and files, and nothing outside."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from snaketune.config import schema
from snaketune.errors import ConfigError, UserError
from snaketune.run_definition import RESULTS

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
CONFIGURATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\.ya?ml")
DEMO = "config.yaml"  # what snakemake takes without --configfile
SIGNS = ("events.jsonl", "report/report.json", "config.json")  # that a run has left something
LINKED = (RESULTS, "data")  # folders that a person may have put on another disk


@dataclass(frozen=True)
class Project:
    """A folder with the Snakefile, the configurations and the results."""

    root: Path

    @property
    def results(self) -> Path:
        return self.root / RESULTS

    def path(self, relative: str) -> Path:
        """The path below this folder that a request names; ConfigError for one that leads out of it."""
        path = self.root / relative
        allowed = [self.root.resolve(), *((self.root / name).resolve() for name in LINKED)]
        is_plain = not Path(relative).is_absolute() and "\0" not in relative and ".." not in Path(relative).parts
        if not is_plain or not any(path.resolve().is_relative_to(folder) for folder in allowed):
            raise ConfigError(
                "this is outside of the project",
                where=relative.replace("\0", "\\0"),
                fix="Copy it into the project's folder",
            )
        return path

    def run_folder(self, name: str) -> Path:
        """results/<name>, which need not exist; ConfigError for what is no run's name."""
        check_run_name(name)
        return self.path(f"{RESULTS}/{name}")

    def run_names(self) -> list[str]:
        """The runs that have left something, the latest first."""
        found = [
            (
                max(_changed(folder / name) for name in ("events.jsonl", "report/report.json", "config.json")),
                folder.name,
            )
            for folder in self.results.glob("*/")
            if RUN_NAME.fullmatch(folder.name) and folder.name not in schema.RESERVED_RUN_NAMES
        ]
        return [name for changed, name in sorted(found, reverse=True) if changed]

    def configurations(self) -> dict[str, str]:
        """The configurations in this folder: file -> name of its run; one with a slip in it has none."""
        found: dict[str, str] = {}
        for path in sorted(self.root.glob("*.y*ml")):
            if CONFIGURATION.fullmatch(path.name):
                found[path.name] = _run_of(path, _changed(path))
        return found

    def configuration(self, name: str) -> Path:
        """A configuration by its file name."""
        if not CONFIGURATION.fullmatch(name) or not (self.root / name).is_file():
            raise ConfigError(
                f"there is no such configuration{schema.did_you_mean(name, self.configurations())}", where=name
            )
        return self.path(name)

    def configuration_of(self, run: str) -> str | None:
        """The configuration file of a run, if it is still here."""
        return next((file for file, name in self.configurations().items() if name == run), None)


def check_run_name(name: str) -> None:
    """Raise ConfigError for what cannot be a run's name."""
    if not RUN_NAME.fullmatch(name) or name in schema.RESERVED_RUN_NAMES:
        raise ConfigError(
            f'"{name[:80]}" cannot be a run\'s name',
            where="run",
            fix="Up to 63 letters, digits, dots, hyphens and underscores, a letter or digit first",
        )


def command_of(configuration: str, stage: str = "") -> list[str]:
    """The words of the command that makes a run, as a person would type them."""
    chosen = [] if configuration == DEMO else ["--configfile", configuration]
    return ["snakemake", *([stage] if stage else []), *chosen]


@functools.lru_cache(maxsize=1000)
def _run_of(path: Path, _changed_at: int) -> str:
    """The run that a configuration names; read again when the file has changed, since a page asks every few seconds."""
    try:
        run = schema.read(path).get("run", "")
    except UserError:
        return ""
    return run if isinstance(run, str) else ""


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
