"""Outcome of a run in a few lines, for the end of every run: verdict, file, command, and where the page is."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable
from pathlib import Path

import msgspec

from snaketune.contracts.report import Conclusion
from snaketune.files import StrPath
from snaketune.runtime.progress import format_bytes


class WrittenReport(msgspec.Struct, frozen=True):
    """What is needed of report.json; the rest of it is not read."""

    folder: str
    conclusion: Conclusion


STAGE_FILES = {
    "data": [("data/report.json", "validate_rows"), ("data/rejected.jsonl", "validate_rows")],
    "plan": [("plan.json", "forecast_run")],
    "pilot": [("pilot/index.html", "write_pilot_report")],
    "train": [("train/selection.json", "select_experiment")],
    "package": [("model", "pass_fidelity")],
    "evaluate": [("evaluation/comparison.json", "compare_scores")],
}
"""Where a person reads on after a run that ended before the report, and the step with which the file is there."""


def stage_lines(folder: StrPath, stages: Iterable[str], steps: Container[str] | None = None) -> list[str]:
    """Lines that say where the results of these stages are, as far as they are there.

    steps: the finished steps of a run that did not get to its end; what others were to make is of an earlier run.
    """
    files = [(stage, Path(folder, name), step) for stage in stages for name, step in STAGE_FILES.get(stage, [])]
    return [
        f"{stage}: {path.as_posix()}"
        for stage, path, step in files
        if path.exists() and (steps is None or step in steps)
    ]


def outcome_lines(folder: StrPath) -> list[str]:
    """Lines on what the report of a run says; none where it has none."""
    report = Path(folder, "report", "report.json")
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return conclusion_lines(msgspec.json.decode(report.read_bytes(), type=WrittenReport))
    return []


def conclusion_lines(report: WrittenReport) -> list[str]:
    """The conclusion for a terminal."""
    conclusion = report.conclusion
    sentences = [
        conclusion.sentence,
        conclusion.quality,
        conclusion.vs_previous,
        conclusion.by_size,
        *conclusion.warnings,
    ]
    lines = [sentence for sentence in sentences if sentence]
    if conclusion.file:
        lines.append(f"file:   {conclusion.file} ({format_bytes(conclusion.bytes or 0)})")
    if conclusion.commands:
        lines.append("run:    " + conclusion.commands[0].command.replace("\n", " && "))
    return [*lines, f"report: {report.folder}/report/index.html"]
