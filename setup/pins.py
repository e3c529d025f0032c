"""Where the versions stand that results depend on: which are chosen, which are the newest, and how they are raised."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from commands import SetupError

CHOSEN = "requirements.txt"
LOCKS = ("requirements.lock", "requirements-dev.lock")
LLAMA = "setup/llama_build.py"
# the trainers and the tool whose environments share the set-up's packages; others have pins of their own
PLACES = (
    *(CHOSEN, LLAMA, "rules/snakemake_patches/__init__.py", "docs/architecture.md", "docs/cluster.md", "envs/*.yaml"),
    *("envs/trainers/trl.*", "envs/trainers/mlx-lm.*", "envs/tools/lm-eval.*"),
)
OLDEST_PYTHON = "3.11"  # a version that lacks it is none for this project
PIN = re.compile(r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;]+)", re.MULTILINE)
CONSTRAINTS = re.compile(r"^\S+\.constraint='(.*)'$", re.MULTILINE)


@dataclass(frozen=True)
class Change:
    """Holds one package with its pinned version and the newest one that pip may take."""

    package: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.package} {self.old} -> {self.new}"


def chosen(text: str) -> dict[str, str]:
    """Return the pins of a file of requirements, by the package's name."""
    return dict(PIN.findall(text))


def newest(package: str, allowed: Mapping[str, str]) -> str | None:
    """Ask where pip is configured to look for the newest version that constraints allow; None where there is none."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    within = SpecifierSet(allowed.get(normal(package), ""))
    return max(within.filter(_released(package)), key=Version, default=None)


def newer(package: str, old: str) -> list[str]:
    """Ask where pip is configured to look for all versions after one, the oldest first."""
    from packaging.version import Version

    return sorted((one for one in _released(package) if is_newer(one, old)), key=Version)


def _released(package: str) -> set[str]:
    """Ask for all versions of a package; a local version such as 2.13.0+cpu is a build of the same version."""
    from packaging.version import Version

    said = _pip("index", "versions", "--python-version", OLDEST_PYTHON, package)
    listed = re.search(r"^Available versions: (.+)$", said, re.MULTILINE)
    return {Version(text).public for text in listed[1].split(", ")} if listed else set()


def is_newer(new: str, old: str) -> bool:
    """Tell whether a version is higher than another."""
    from packaging.version import Version

    return Version(new) > Version(old)


def constraints() -> dict[str, str]:
    """Return what pip's configuration allows of each package that it constrains, as specifiers."""
    from packaging.requirements import InvalidRequirement, Requirement

    allowed: dict[str, str] = {}
    for path in (Path(name) for names in CONSTRAINTS.findall(_pip("config", "list")) for name in names.split(r"\n")):
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                one = Requirement(line.partition(" #")[0].strip())
            except InvalidRequirement:  # a comment, an empty line, an option
                continue
            allowed[normal(one.name)] = str(one.specifier)
    return allowed


def normal(package: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def write(project: Path, change: Change) -> None:
    """Replace one package's pin in every file of a project where it stands."""
    name = re.sub(r"[-_.]+", "[-_.]+", re.escape(normal(change.package)).replace(r"\-", "-"))
    pin = re.compile(rf"(?<![\w.-])({name}(?:\[[\w,]+\])?==){re.escape(change.old)}(?![\w.+])", re.IGNORECASE)
    for path in places(project):
        text = path.read_text(encoding="utf-8")
        raised = pin.sub(rf"\g<1>{change.new}", text)
        if change.package == "snakemake":  # the patches' version, and the sentences about it
            stated = rf'(Snakemake |TESTED_VERSION = "){re.escape(change.old)}(?!\w|\.\d)'
            raised = re.sub(stated, rf"\g<1>{change.new}", raised)
        if raised != text:
            path.write_text(raised, encoding="utf-8")


def write_llama(project: Path, change: Change, sha256: str) -> None:
    """Raise the version of llama.cpp's sources that are built, with the SHA-256 of their archive."""
    path = project / LLAMA
    text = path.read_text(encoding="utf-8")
    for name, value in (("VERSION", change.new), ("ARCHIVE_SHA256", sha256)):
        text = re.sub(rf'^{name} = ".*"$', f'{name} = "{value}"', text, flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8")


def places(project: Path) -> Iterator[Path]:
    """Yield the files of a project in which pins stand, without the lock files."""
    for pattern in PLACES:
        yield from sorted(project.glob(pattern))


def _pip(*arguments: str) -> str:
    """Return what pip prints, with the person's own configuration of it."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution" not in done.stderr:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no words")
        raise SetupError(f"pip {arguments[0]} stopped: {last.strip()}. `pip config list` says where pip looks.")
    return done.stdout
