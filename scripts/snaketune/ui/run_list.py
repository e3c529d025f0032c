"""All runs in one list: what each came to, its scores, and whether it is at work."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from snaketune.contracts.evaluate import Score
from snaketune.contracts.report import Conclusion
from snaketune.contracts.run_comparison import RunsReport
from snaketune.evaluate.metrics import METRICS
from snaketune.report import formatting
from snaketune.runtime.events import Event
from snaketune.ui.project import Project
from snaketune.ui.replies import Page

TAIL = 65_536  # bytes of an events file in which its last word about the run is looked for
SHOWN_METRICS = 4
MAX_COMPARED = 12  # of the latest runs; the page of all runs has the rest


class ListedScore(msgspec.Struct, frozen=True, kw_only=True):
    """A score as it is read: label, value with unit, and its interval in words."""

    label: str
    value: str
    interval: str


class ListedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run in the list. status: of its report, empty without one; state: of its last call, as in `live`."""

    run: str
    state: str
    status: str
    sentence: str
    scores: list[ListedScore]
    configuration: str | None
    has_report: bool


class RunListing(msgspec.Struct, frozen=True, kw_only=True):
    """A page of all runs, the latest first; new: configurations of which nothing was run yet."""

    total: int
    runs: list[ListedRun]
    new: dict[str, str]


class _Variant(msgspec.Struct):
    name: str
    scores: _Scores


class _Scores(msgspec.Struct):
    metrics: dict[str, Score]


class _Evaluation(msgspec.Struct):
    variants: list[_Variant]
    tuned: str | None


class _Report(msgspec.Struct):
    """What is needed of report.json."""

    conclusion: Conclusion
    evaluation: _Evaluation


class RunList:
    """Reads the list; a report is read again when it has changed."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._reports: dict[Path, tuple[int, _Report | None]] = {}

    def page(self, page: Page, running: str | None) -> RunListing:
        """A page of the list; running: the run that is at work."""
        names = self.project.run_names()
        files = {run: file for file, run in self.project.configurations().items()}
        new = {file: run for run, file in files.items() if run not in names}
        if running and running not in names:
            names.insert(0, running)
        return RunListing(
            total=len(names),
            runs=[self._listed(name, files.get(name), running) for name in page.of(names)],
            new=new,
        )

    def _listed(self, name: str, configuration: str | None, running: str | None) -> ListedRun:
        folder = self.project.results / name
        report = self._report(folder / "report" / "report.json")
        return ListedRun(
            run=name,
            state="running" if name == running else last_state(folder / "events.jsonl"),
            status=report.conclusion.status if report else "",
            sentence=report.conclusion.sentence if report else "",
            scores=_scores(report.evaluation) if report else [],
            configuration=configuration,
            has_report=(folder / "report" / "index.html").is_file(),
        )

    def _report(self, path: Path) -> _Report | None:
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return None
        if self._reports.get(path, (0, None))[0] != changed:
            found = None
            with contextlib.suppress(OSError, msgspec.DecodeError):
                found = msgspec.json.decode(path.read_bytes(), type=_Report)
            self._reports[path] = changed, found
        return self._reports[path][1]


def _scores(evaluation: _Evaluation) -> list[ListedScore]:
    metrics: Mapping[str, Score] = next(
        (one.scores.metrics for one in evaluation.variants if one.name == evaluation.tuned), {}
    )
    return [listed_score(name, score) for name, score in metrics.items() if name in METRICS][:SHOWN_METRICS]


def listed_score(name: str, score: Score) -> ListedScore:
    """A score in words."""
    metric = METRICS[name]
    shown = formatting.format_value
    interval = ""
    if score.low is not None and score.high is not None:
        interval = f"{shown(metric, score.low)} to {shown(metric, score.high)}"
    return ListedScore(label=metric.label, value=shown(metric, score.value), interval=interval)


def last_state(path: Path) -> str:
    """What the last word about the run in an events file says; `killed` where it had begun and nothing ended it."""
    try:
        with open(path, "rb") as lines:
            size = lines.seek(0, os.SEEK_END)
            lines.seek(max(0, size - TAIL))
            content = lines.read().splitlines()
    except OSError:
        return "none"
    for line in reversed(content):
        with contextlib.suppress(msgspec.DecodeError):
            event = msgspec.json.decode(line, type=Event)
            if not event.step:
                return "killed" if event.state == "started" else event.state
    return "killed" if content else "none"


def compare(project: Project) -> RunsReport:
    """The latest runs that have a report, compared with each other as `snakemake runs` does it."""
    from snaketune.report import run_comparison

    names = [name for name in project.run_names() if (project.results / name / "report" / "report.json").is_file()]
    return run_comparison.collect([project.results / name for name in names[:MAX_COMPARED]], seed=1)
