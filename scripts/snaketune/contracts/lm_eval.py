"""What lm-evaluation-harness says of base and fused model: lm_eval/results.json, written by run_lm_eval."""

from __future__ import annotations

import math

from snaketune.files import Record


class HarnessValue(Record, frozen=True, kw_only=True):
    """A metric of a task by lm-eval, with its standard error.

    value: None where it is NaN or infinite; higher_is_better: None where lm-eval does not say; each: the value of each
    document, where every one has a finite one; weights: what the sum of these is divided by, of each document, where
    that is not their number.
    """

    value: float | None
    stderr: float | None
    higher_is_better: bool | None
    each: list[float]
    weights: list[float]


class HarnessOutput(Record, frozen=True, kw_only=True):
    """What the harness wrote of one model: metrics by task; groups: the tasks of each group among them."""

    version: str
    tasks: dict[str, dict[str, HarnessValue]]
    groups: dict[str, list[str]]


class HarnessComparison(Record, frozen=True, kw_only=True):
    """A metric of base and fused model on the same documents.

    base, fused: None where it is NaN or infinite; difference: fused less base, None then; difference_stderr: of the
    mean of the documents' differences, None where the metric is no mean of them; p: two-sided, of the pairs, None for a
    metric that has no value for each document, as a corpus score. named: whether the task is one that the configuration
    names, which counts as forgetting; p_corrected: its p for the number of all such tests.
    """

    task: str
    metric: str
    named: bool
    higher_is_better: bool | None
    base: float | None
    base_stderr: float | None
    fused: float | None
    fused_stderr: float | None
    documents: int
    difference: float | None
    difference_stderr: float | None
    p: float | None
    p_corrected: float | None

    def is_worse(self, alpha: float) -> bool:
        """Whether a named task shows that something was forgotten, at the level alpha."""
        if self.higher_is_better is None or self.p_corrected is None or self.p_corrected >= alpha:
            return False
        return self.difference is not None and (self.difference < 0) == self.higher_is_better

    def is_broken(self) -> bool:
        """Whether the fused model has no number where the base has one."""
        return self.fused is None and self.base is not None

    def ratio(self) -> float | None:
        """How many times worse than the base it is: 1.2 for a fifth more perplexity, or for 0.5 instead of 0.6."""
        worse, better = (self.base, self.fused) if self.higher_is_better else (self.fused, self.base)
        if worse is None or better is None or worse < 0 or better < 0:
            return None
        return worse / better if better else math.inf


class Judged(Record, frozen=True, kw_only=True):
    """What lm-eval judged: the SHA-256 of the fused model's manifest, and that of the test rows."""

    model: str
    rows: str


class HarnessResults(Record, frozen=True, kw_only=True):
    """lm_eval/results.json; version: None where lm-eval is not installed, and `message` says how to get it.

    judged: None then, and in the results of versions that did not keep it.
    """

    version: str | None
    message: str
    comparisons: list[HarnessComparison]
    judged: Judged | None = None
