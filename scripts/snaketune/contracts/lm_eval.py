"""What lm-evaluation-harness says of base and fused model: lm_eval/results.json, written by run_lm_eval."""

from __future__ import annotations

from snaketune.files import Record


class HarnessValue(Record, frozen=True, kw_only=True):
    """A metric of a task by lm-eval, with its standard error; each: its value of each document, where it has one."""

    value: float
    stderr: float | None
    each: list[float]


class HarnessOutput(Record, frozen=True, kw_only=True):
    """What the harness wrote of one model: metrics by task."""

    version: str
    tasks: dict[str, dict[str, HarnessValue]]


class HarnessComparison(Record, frozen=True, kw_only=True):
    """A metric of base and fused model on the same documents.

    difference: fused less base, with the standard error of the mean of the documents' differences and a two-sided
    p-value; None for a metric that has no value for each document, as a corpus score.
    """

    task: str
    metric: str
    base: float
    base_stderr: float | None
    fused: float
    fused_stderr: float | None
    documents: int
    difference: float
    difference_stderr: float | None
    p: float | None


class HarnessResults(Record, frozen=True, kw_only=True):
    """lm_eval/results.json; version: None where lm-eval is not installed, and `message` says how to get it."""

    version: str | None
    message: str
    comparisons: list[HarnessComparison]
