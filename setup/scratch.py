"""A copy of the project in which new versions are tried: its files, an environment of its own, and its checks.

The copy holds what git tracks, as it is in the person's folder now. Its environment stays from one candidate to the
next, and pip changes in it only what differs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pins
from commands import CommandFailed, SetupError, run
from pins import Change
from progress_line import ProgressLine

KEPT = (".venv", "vendor", ".trainers", ".mypy_cache")
MAX_FAILURES = 40  # of one check
LLAMA_ARCHIVE = "vendor/llama-build"


@dataclass(frozen=True)
class Check:
    """Names something that must work with new versions: tests, or a command of its own."""

    name: str
    tests: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Says what broke: a test or a command, and the first line of its error."""

    where: str
    error: str


@dataclass(frozen=True)
class Outcome:
    """Holds what came of one check; skipped: tests that want something which is not here."""

    check: str
    failures: tuple[Failure, ...]
    skipped: int = 0

    @property
    def passed(self) -> bool:
        """Tell whether nothing broke."""
        return not self.failures


class Scratch:
    """A copy of a project, made anew for each candidate but for its environment."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.project = folder / "project"

    @property
    def candidate(self) -> str:
        """What the copy and its environment are made for; nothing while they are being made."""
        path = self.folder / "candidate.txt"
        return path.read_text(encoding="utf-8") if path.is_file() and self.project.is_dir() else ""

    @candidate.setter
    def candidate(self, key: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "candidate.txt").write_text(key, encoding="utf-8")

    def tracked(self) -> list[str]:
        """Return the names of the files that git tracks and that are there."""
        command = ["git", "ls-files", "-z"]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode or not done.stdout:
            raise SetupError("make upgrade copies what git tracks, and this folder is no clone. Clone the project.")
        return [name for name in done.stdout.split("\0") if (self.root / name).is_file()]

    def digest(self) -> str:
        """Return the SHA-256 of the names and contents of all that is copied."""
        total = hashlib.sha256()
        for name in self.tracked():
            total.update(f"{name}\0{hashlib.sha256((self.root / name).read_bytes()).hexdigest()}\n".encode())
        return total.hexdigest()

    def fill(self, changes: Sequence[Change]) -> None:
        """Copy the project anew, but for its environment, and raise these pins in it."""
        self.candidate = ""
        self.project.mkdir(exist_ok=True)
        for path in self.project.iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for name in self.tracked():
            target = self.project / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.root / name, target)
        for change in changes:
            pins.write(self.project, change)
            if change.package == "llama-cpp-python":
                pins.write_llama(self.project, change, self._fetch_llama(change.new))

    def _fetch_llama(self, version: str) -> str:
        """Fetch the source archive to where the copy's set-up looks for it, and return its SHA-256."""
        target = self.project / LLAMA_ARCHIVE
        options = ("--no-deps", "--no-binary", "llama-cpp-python", "--dest", target)
        run([sys.executable, "-m", "pip", "download", *options, f"llama-cpp-python=={version}"], folder=self.project)
        (archive,) = target.glob(f"llama_cpp_python-{version}.tar.gz")
        return hashlib.sha256(archive.read_bytes()).hexdigest()

    def lock(self, line: ProgressLine) -> Outcome:
        """Resolve all versions together into the copy's lock files."""
        return self._command(Check("lock", command=("bash", "setup/lock.sh")), line)

    def set_up(self, line: ProgressLine) -> Outcome:
        """Make the copy's environment, anew where a package of an earlier candidate would stay in it."""
        names, noted = "\n".join(sorted(self._locked())), self.folder / "packages.txt"
        if not noted.is_file() or noted.read_text(encoding="utf-8") != names:
            shutil.rmtree(self.project / ".venv", ignore_errors=True)
        noted.write_text(names, encoding="utf-8")
        return self._command(Check("set-up", command=("bash", "setup/run.sh", "--dev")), line)

    def _locked(self) -> Iterator[str]:
        for name in pins.LOCKS:
            yield from pins.chosen((self.project / name).read_text(encoding="utf-8"))

    def check(self, check: Check, line: ProgressLine) -> Outcome:
        """Run one check in the copy, with the copy's environment."""
        return self._tests(check, line) if check.tests else self._command(check, line)

    def _tests(self, check: Check, line: ProgressLine) -> Outcome:
        found = self.folder / "tests.xml"
        found.unlink(missing_ok=True)
        here = [one for one in check.tests if (self.project / one).exists()]
        options = ("-vv", "-m", "not slow", "-p", "no:cacheprovider", f"--junitxml={found}")
        error = self._run(("python", "-m", "pytest", *options, *here), line, _percent)
        if not found.is_file():
            return Outcome(check.name, (Failure(check.name, error or "pytest left no record"),))
        outcome = read_tests(check.name, found)
        if error and outcome.passed:
            return Outcome(check.name, (Failure(check.name, error),))
        return outcome

    def _command(self, check: Check, line: ProgressLine) -> Outcome:
        error = self._run(check.command, line, _plain)
        return Outcome(check.name, (Failure(" ".join(check.command), error),) if error else ())

    def _run(self, command: tuple[str, ...], line: ProgressLine, watch: Callable[[str], str]) -> str:
        """Run a command of the copy; returns the line that says why it failed, nothing where it did not."""
        own = self.project / ".venv" / "bin"
        env = {"PATH": f"{own}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "scripts"}
        words = [str(own / "python"), *command[1:]] if command[0] == "python" else list(command)
        try:
            run(words, line, watch, env, folder=self.project)
        except CommandFailed as failure:
            return first_error(failure.output)
        return ""

    def write_back(self) -> list[str]:
        """Give the project the pins of the copy, all of them or none, and return the names of the files."""
        paths = [*pins.places(self.project), *(self.project / name for name in pins.LOCKS)]
        names = [path.relative_to(self.project).as_posix() for path in paths]
        changed = [name for name in names if (self.project / name).read_bytes() != (self.root / name).read_bytes()]
        parts = [(self.root / f"{name}.part", self.root / name) for name in changed]
        try:
            for (part, _), name in zip(parts, changed, strict=True):
                shutil.copy2(self.project / name, part)
            for part, target in parts:  # Ctrl-C is held back by the caller: renaming takes milliseconds
                part.replace(target)
        finally:
            for part, _ in parts:
                part.unlink(missing_ok=True)
        return changed


def read_tests(check: str, path: Path) -> Outcome:
    """Return what pytest's record says: each test that failed, with the first line of its error."""
    failures, skipped = [], 0
    for case in ElementTree.parse(path).iter("testcase"):
        skipped += case.find("skipped") is not None
        for kind in ("failure", "error"):
            if (found := case.find(kind)) is not None:
                module, name = case.get("classname", ""), case.get("name", "")
                where = f"{module.replace('.', '/')}.py::{name}" if module else name.replace(".", "/")
                failures.append(Failure(where, (found.get("message") or found.text or "no words").splitlines()[0]))
    return Outcome(check, tuple(failures[:MAX_FAILURES]), skipped)


def first_error(output: str) -> str:
    """Return what the project's own programs end with, else the first line with an error, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("snaketune: ")]
    words = re.compile(r"(?i)\berror\b|\bfailed\b|no solution found")
    return next(iter((*own[-1:], *filter(words.search, lines), *lines[-1:], "no words")))


def _plain(said: str) -> str:
    """Return a line of a program without its columns; warnings, such as those of pip, are none of its progress."""
    return "" if said.startswith("WARNING") else " ".join(said.split())


def _percent(said: str) -> str:
    found = re.search(r"\[ *(\d+)%\]$", said.strip())
    return f"{found[1]} %" if found else ""
