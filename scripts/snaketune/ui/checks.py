"""The checks of data that the page has asked for: each in a folder named after what it checks, made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from snaketune.config.sections import RunConfig
from snaketune.contracts.data import DataReport, LeakReport, SplitReport
from snaketune.data import sources
from snaketune.files import read_json, write_json
from snaketune.ui import data_check
from snaketune.ui.data_check import CheckJob, CheckResult
from snaketune.ui.processes import tail
from snaketune.ui.project import Project

FOLDER = ".ui/checks"  # below results
MOST = 6  # checks that are kept
MAX_LISTED = 20  # leaks
T = TypeVar("T")


class CheckState(msgspec.Struct, frozen=True, kw_only=True):
    """A check: running, done, or broken off with a traceback that is a defect of ours."""

    key: str
    state: str
    result: CheckResult | None = None
    report: DataReport | None = None
    split: SplitReport | None = None
    leaks: LeakReport | None = None
    traceback: str = ""


@dataclass
class Checks:
    """Starts checks and finds them again."""

    project: Project
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def begin(self, config: RunConfig) -> CheckState:
        """Begin to check the rows of a configuration, or find that this was done already.

        Raises ConfigError or DataError for a source that is not there, or outside of the project.
        """
        found = sources.files(config.data.sources)
        for path in found:
            self.project.path(os.path.relpath(Path(path).absolute(), self.project.root.absolute()))
        job = CheckJob(data=config.data, seed=config.seed)
        content = msgspec.json.encode(job)
        states = [(path, Path(path).stat().st_size, Path(path).stat().st_mtime_ns) for path in found]
        key = hashlib.sha256(content + repr(states).encode()).hexdigest()[:24]
        folder = self.folder(key)
        if key not in self.processes and not (folder / "result.json").is_file():
            self._remove_old()
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_json(folder / "job.json", job)
            with open(folder / "output.txt", "wb") as output:
                self.processes[key] = subprocess.Popen(
                    [sys.executable, "-m", "snaketune.ui.data_check", str(folder.absolute())],
                    cwd=self.project.root,
                    env=os.environ | {"PYTHONPATH": str(self.project.root / "scripts")},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
        return self.state(key)

    def folder(self, key: str) -> Path:
        """Where a check lies; keys are of this module's making."""
        if not (len(key) == 24 and key.isalnum() and key.isascii()):
            key = "none"
        return self.project.results / FOLDER / key

    def state(self, key: str) -> CheckState:
        """A check as it stands."""
        folder = self.folder(key)
        process = self.processes.get(key)
        result = data_check.read_result(folder)
        if result is None:
            running = process is not None and process.poll() is None
            output = "" if running else tail(folder / "output.txt", 4000) or "it ended without a word"
            return CheckState(key=key, state="running" if running else "broken", traceback=output)
        self.processes.pop(key, None)
        leaks = _read(folder / "leaks.json", LeakReport)
        return CheckState(
            key=key,
            state="done",
            result=result,
            report=_read(folder / "report.json", DataReport),
            split=_read(folder / "split.json", SplitReport),
            leaks=msgspec.structs.replace(leaks, listed=leaks.listed[:MAX_LISTED]) if leaks else None,
        )

    def _remove_old(self) -> None:
        folders = sorted((self.project.results / FOLDER).glob("*/"), key=lambda path: path.stat().st_mtime)
        for folder in folders[: max(0, len(folders) - MOST + 1)]:
            if folder.name not in self.processes:
                shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path, kind: type[T]) -> T | None:
    return read_json(path, kind) if path.is_file() else None
