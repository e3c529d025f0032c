"""Outcome of a run in a few lines, for the end of every run: verdict, file, command, and where the page is."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from snaketune.contracts.report import Conclusion
from snaketune.display.lines import format_bytes
from snaketune.files import StrPath


class WrittenReport(msgspec.Struct, frozen=True):
    """What is needed of report.json; the rest of it is not read."""

    folder: str
    conclusion: Conclusion


def outcome_lines(folder: StrPath) -> list[str]:
    """Lines on what stands in a run's folder now; none before there is a page."""
    report = Path(folder, "report", "report.json")
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return conclusion_lines(msgspec.json.decode(report.read_bytes(), type=WrittenReport))
    pilot = Path(folder, "pilot", "index.html")
    return [f"pilot:  {pilot.as_posix()}"] if pilot.exists() else []


def conclusion_lines(report: WrittenReport) -> list[str]:
    """The conclusion for a terminal."""
    conclusion = report.conclusion
    sentences = [conclusion.sentence, conclusion.quality, conclusion.vs_previous, *conclusion.warnings]
    lines = [sentence for sentence in sentences if sentence]
    if conclusion.file:
        lines.append(f"file:   {conclusion.file} ({format_bytes(conclusion.bytes or 0)})")
    if conclusion.commands:
        lines.append("run:    " + conclusion.commands[0].command.replace("\n", " && "))
    return [*lines, f"report: {report.folder}/report/index.html"]
