"""What `snakemake runs` writes: runs.json, all runs side by side."""

from __future__ import annotations

from typing import Any

from snaketune.contracts.evaluate import MetricComparison, Score
from snaketune.contracts.report import JsonObject, Status
from snaketune.files import Record


class RunSummary(Record, frozen=True, kw_only=True):
    """A run among all runs, by its report.json; split: rows of each split, sources: the data files."""

    run: str
    folder: str
    status: Status
    conclusion: str
    quality: str | None
    file: str | None
    bytes: int | None
    tuned: str | None
    rows: int | None
    metrics: dict[str, Score]
    forgetting: float | None
    config: JsonObject
    base: str | None
    split: dict[str, int] | None
    sources: list[JsonObject]


class DataChange(Record, frozen=True, kw_only=True):
    """How the rows of two runs differ: moved rows stand in another split."""

    added: int
    removed: int
    kept: int
    moved: int


class RunPair(Record, frozen=True, kw_only=True):
    """A run compared with another on the rows that stand in the test splits of both."""

    run: str
    baseline: str
    status: Status
    sentence: str
    rows: int
    clusters: int
    metrics: dict[str, MetricComparison]
    data: DataChange


class SettingDifference(Record, frozen=True, kw_only=True):
    """A setting that is not the same in all runs."""

    key: str
    values: dict[str, Any]


class CommonScores(Record, frozen=True, kw_only=True):
    """The scores of all runs on the rows that all of them answered."""

    rows: int
    clusters: int
    runs: dict[str, dict[str, Score]]


class RunsReport(Record, frozen=True, kw_only=True):
    """results/runs.json, written by compare_runs; unreadable: the runs whose report.json cannot be read."""

    runs: list[RunSummary]
    unreadable: list[str]
    settings: list[SettingDifference]
    comparisons: list[RunPair]
    num_tests: int
    common: CommonScores | None
