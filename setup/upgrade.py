"""Try the newest versions of all that results depend on, and raise the pins if everything holds: `make upgrade`.

The newest versions are those that pip may take with the person's own configuration. They are tried together in
.upgrade/, a copy of the project with an environment of its own: contract tests, the families' quick tests, the demo. If
all is green, the pins of the project are raised; otherwise each package is tried alone on what broke, and no file of
the project changes. A run that was stopped goes on with the checks that it had not finished.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pins
import upgrade_report
from commands import ROOT, SetupError
from pins import Change
from progress_line import ProgressLine
from scratch import Check, Failure, Outcome, Scratch
from upgrade_report import Attempt

Step = Callable[[ProgressLine], Outcome]
FOLDER = ".upgrade"
REPORT = "report.md"
ASKED_AT_ONCE = 4  # packages
CHECKS = (
    Check("pins agree", ("tests/unit/setup", "tests/unit/config", "tests/unit/test_releases.py")),
    Check("types", command=("mypy",)),
    Check("Snakemake", ("tests/unit/runtime", "tests/workflow/test_command_line.py")),
    Check("engines", ("tests/unit/engines", "tests/unit/train")),
    Check("tokens and templates", ("tests/unit/tokens",)),
    Check("families", ("tests/unit/package", "tests/unit/plan", "tests/unit/model")),
    Check("rows and tables", ("tests/unit/data",)),
    Check("measures", ("tests/unit/evaluate", "tests/unit/pilot")),
    Check("pages", ("tests/unit/report", "tests/unit/ui", "tests/unit/display")),
    Check("demo", command=("snakemake",)),
)
"""What relies on the pinned packages, cheapest first."""


class Upgrade:
    """Tries candidates in a scratch copy of a project, and remembers what came of each."""

    def __init__(self, root: Path, checks: Sequence[Check] = CHECKS) -> None:
        self.root, self.checks = root, checks
        self.folder = root / FOLDER
        self.scratch = Scratch(root, self.folder)

    def run(self, only: Sequence[str] = ()) -> int:
        """Try all newer versions, or those of some packages; returns the exit code: 1 where something broke."""
        changes = self._newer(only)
        if not changes:
            print("snaketune: every pin is the newest version that pip may take here")
            return 0
        before = self.scratch.digest()
        together = self._attempt(changes, self.checks)
        if together.passed:
            self._raise(together, before)
            return 0
        alone: list[Attempt] = []
        if len(changes) > 1:
            broken = [check for check in self.checks if check.name in together.broken]
            alone = [self._attempt([change], broken) for change in changes]
        self._report(together, alone)
        print(f"snaketune: no pin was changed. {FOLDER}/{REPORT} has the whole list, {FOLDER}/project is the copy")
        return 1

    def _newer(self, only: Sequence[str]) -> list[Change]:
        """The packages of requirements.txt of which there is a newer version."""
        chosen = pins.chosen((self.root / pins.CHOSEN).read_text(encoding="utf-8"))
        asked = {pins.normal(name) for name in only or chosen}
        if unknown := asked - {pins.normal(name) for name in chosen}:
            raise SetupError(f"{pins.CHOSEN} has no {', '.join(sorted(unknown))}. ONLY= takes names of packages in it.")
        wanted = {name: old for name, old in chosen.items() if pins.normal(name) in asked}
        line = ProgressLine("newest versions")
        line.update("starting")
        ask = functools.partial(pins.newest, allowed=pins.constraints())
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            pairs = list(zip(wanted.items(), pool.map(ask, wanted), strict=True))
        found = [Change(name, old, new) for (name, old), new in pairs if new and pins.is_newer(new, old)]
        line.finish(f"{len(found)} of {len(wanted)} packages have a newer one")
        return found

    def _attempt(self, changes: Sequence[Change], checks: Sequence[Check]) -> Attempt:
        """Try one candidate; what finished checks gave is taken from the notes while the project stays as it is."""
        print(f"snaketune: trying {', '.join(map(str, changes))}", flush=True)
        candidate = f"{self.scratch.digest()} {sorted(map(str, changes))} {_machine()}"
        notes = Notes(self.folder / "outcomes.json", candidate)
        found = [notes.outcomes[one.name] for one in checks if one.name in notes.outcomes]
        is_known_to_break = len(found) == len(checks) and not all(one.passed for one in found)
        if is_known_to_break or self._prepare(changes, notes):
            for check in checks:
                if check.name not in notes.outcomes:
                    notes.add(_shown(check.name, functools.partial(self.scratch.check, check)))
        names = ("lock", "set-up", *(one.name for one in checks))
        return Attempt(tuple(changes), tuple(notes.outcomes[name] for name in names if name in notes.outcomes))

    def _prepare(self, changes: Sequence[Change], notes: Notes) -> bool:
        """Make the copy and its environment those of a candidate, unless they are; tells whether that could be done."""
        if self.scratch.candidate == notes.key:
            return True
        steps: dict[str, Step] = {"lock": lambda line: self._lock(changes, line), "set-up": self.scratch.set_up}
        for name, step in steps.items():
            outcome = _shown(name, step)
            notes.add(outcome)
            if not outcome.passed:
                return False
        self.scratch.candidate = notes.key
        return True

    def _lock(self, changes: Sequence[Change], line: ProgressLine) -> Outcome:
        try:
            self.scratch.fill(changes)
        except SetupError as error:  # a source archive that pip does not get
            return Outcome("lock", (Failure("pip download", str(error)),))
        return self.scratch.lock(line)

    def _raise(self, together: Attempt, before: str) -> None:
        """Write the new pins, unless the project changed meanwhile."""
        if self.scratch.digest() != before:
            raise SetupError("the project's files changed while new versions were tried. Run make upgrade again.")
        held = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        try:
            names = self.scratch.write_back()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        self._report(together, [])
        shutil.rmtree(self.scratch.project)
        print(f"snaketune: raised in {', '.join(names)}. Look at git diff, then run make setup and make test")

    def _report(self, together: Attempt, alone: Sequence[Attempt]) -> None:
        (self.folder / REPORT).write_text(upgrade_report.markdown(together, alone, _machine()), encoding="utf-8")
        print(upgrade_report.terminal(together, alone))


class Notes:
    """The outcomes of one candidate's finished checks, in a file that holds those of all candidates."""

    def __init__(self, path: Path, candidate: str) -> None:
        self.path, self.key = path, hashlib.sha256(candidate.encode()).hexdigest()[:16]
        found = self._read().get(self.key, [])
        outcomes = [
            Outcome(one["check"], tuple(Failure(**each) for each in one["failures"]), one["skipped"]) for one in found
        ]
        self.outcomes = {one.check: one for one in outcomes}

    def _read(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = json.loads(self.path.read_text("utf-8")) if self.path.is_file() else {}
        return found

    def add(self, outcome: Outcome) -> None:
        """Note the outcome of a check. A set-up that failed is tried again, since it may be the network's fault."""
        self.outcomes[outcome.check] = outcome
        kept = [one for one in self.outcomes.values() if one.passed or one.check not in ("lock", "set-up")]
        whole = self._read() | {self.key: [dataclasses.asdict(one) for one in kept]}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(whole, indent=1), encoding="utf-8")
        part.replace(self.path)


def _shown(name: str, step: Step) -> Outcome:
    """Take a step with a line about it on the terminal."""
    line = ProgressLine(name)
    line.update("starting")
    try:
        outcome = step(line)
    except BaseException:
        line.clear()
        raise
    skipped = f", {outcome.skipped} tests skipped" if outcome.skipped else ""
    line.finish(f"{'holds' if outcome.passed else f'{len(outcome.failures)} broke'}{skipped}")
    return outcome


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"


def main(upgrade: Upgrade, only: Sequence[str]) -> int:
    """Run an upgrade; a mistake and Ctrl-C end with a sentence."""
    try:
        return upgrade.run(only)
    except SetupError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsnaketune: stopped; the project is as it was, and make upgrade goes on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description="Try the newest versions, and raise the pins if everything holds.")
    reader.add_argument("--only", default="", help="packages of requirements.txt, separated by spaces")
    raise SystemExit(main(Upgrade(ROOT), reader.parse_args().only.split()))
