"""What some tests need beside the set-up: whether it is here, and the command that installs it.

A test that cannot run for want of one skips through here, and `pytest_terminal_summary` names them all at the end of a
run, so that nobody takes a run for a full one that was not.
"""

from __future__ import annotations

import collections
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import browser
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
STORIES = SHARED / "models/stories260K"
GSM8K, WIKISQL, BAD_INPUTS = SHARED / "data/gsm8k", SHARED / "data/wikisql", SHARED / "bad_inputs"
LLAMA_CPP = ROOT / "vendor/llama.cpp"
MISSING = "not installed: "


@dataclass(frozen=True)
class Tool:
    """A program, a folder or a right. install: the command, or what else to do, on this kind of machine."""

    name: str
    install: str
    is_here: Callable[[], bool]

    @property
    def reason(self) -> str:
        return f"{MISSING}{self.name} ({self.install})"

    @property
    def needed(self) -> pytest.MarkDecorator:
        """Mark a test that skips where this is not here."""
        return pytest.mark.skipif(not self.is_here(), reason=self.reason)

    def require(self) -> None:
        """Skip the test that runs now where this is not here."""
        if not self.is_here():
            pytest.skip(self.reason)


def _packages(debian: str, homebrew: str) -> str:
    return f"brew install {homebrew}" if sys.platform == "darwin" else f"sudo apt-get install {debian}"


def _folder(path: Path) -> Tool:
    name = os.path.relpath(path, ROOT)
    return Tool(name, f"copy it to {name}, beside this checkout; tests/README.md says what it is", path.is_dir)


CHROMIUM = Tool(
    "Chromium and its driver",
    _packages("chromium chromium-driver", "--cask chromium chromedriver"),
    lambda: browser.found() is not None,
)
GO_LANGUAGE = Tool("Go", _packages("golang-go", "go"), lambda: shutil.which("go") is not None)
CONVERTER = Tool("llama.cpp's converter", "make setup", (LLAMA_CPP / "convert_hf_to_gguf.py").is_file)
SMALL_DISK = Tool("the right to mount a small disk", "run the tests as root on Linux", lambda: os.geteuid() == 0)
STORIES_MODEL, GSM8K_ROWS, WIKISQL_ROWS, MALFORMED = map(_folder, (STORIES, GSM8K, WIKISQL, BAD_INPUTS))


def missing_tools(reasons: Iterable[str]) -> list[str]:
    """One line for each tool that tests were skipped for, with their number and the command that installs it."""
    counts = collections.Counter(reason.removeprefix("Skipped: ") for reason in reasons)
    return [
        f"{reason.removeprefix(MISSING)}: {count} {'test' if count == 1 else 'tests'} skipped"
        for reason, count in sorted(counts.items())
        if reason.startswith(MISSING)
    ]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    lines = missing_tools(report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple))
    if lines:
        terminalreporter.section("not tested, because it is not installed")
        for line in lines:
            terminalreporter.write_line(line)
