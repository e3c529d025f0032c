"""Methods of training against each other on the same rows: scores, paired tests, and what their seeds do by themselves.

Trainings that differ in nothing but their seeds are one method: its statistics are the mean over them, row by row, so
that a paired test sees rows and not trainings. The luck of the seeds is measured beside it.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from snaketune.contracts.bake_off import MethodPair, SeedLuck
from snaketune.contracts.evaluate import MetricComparison, Prediction, Score
from snaketune.evaluate import significance
from snaketune.evaluate.compare import compare_statistics, corrected
from snaketune.evaluate.metrics import Metric
from snaketune.evaluate.score import cluster_ids, score_statistics
from snaketune.runtime.progress import progress

MOST_TO_CROSS = 12
"""With more methods, each is compared with the first alone: all pairs would leave no test any power."""


@dataclass(frozen=True, eq=False)
class Contestant:
    """A method, or a zero line, with the predictions of each of its trainings on the same rows."""

    name: str
    predictions: list[list[Prediction]]
    is_trained: bool = True

    @functools.cached_property
    def _known(self) -> dict[str, list[np.ndarray]]:
        return {}

    def by_training(self, metric: Metric) -> list[np.ndarray]:
        """The metric's statistics of each row [rows, k], for each training."""
        if metric.name not in self._known:
            self._known[metric.name] = [metric.row_statistics(metric.scorable(one)) for one in self.predictions]
        return self._known[metric.name]

    def rows(self, metric: Metric) -> np.ndarray:
        """The same as the mean over the trainings."""
        mean: np.ndarray = np.mean(self.by_training(metric), axis=0)
        return mean

    def clusters(self, metric: Metric) -> list[str]:
        """The cluster of each row."""
        return cluster_ids(metric.scorable(self.predictions[0]))

    def values(self, metric: Metric) -> list[float]:
        """The metric of each training."""
        return [float(metric.aggregate(part.sum(axis=0))) for part in self.by_training(metric)]

    def score(self, metric: Metric, seed: int) -> Score:
        """The metric with its interval."""
        return score_statistics(metric, self.rows(metric), self.clusters(metric), seed)


Pair = tuple[Contestant, Contestant]


def pairs_of(contestants: Sequence[Contestant]) -> list[Pair]:
    """Which is compared with which: each method with each zero line, and with each method before it."""
    zero = [one for one in contestants if not one.is_trained]
    methods = [one for one in contestants if one.is_trained]
    found = [(one, line) for line in zero for one in methods]
    if len(methods) <= MOST_TO_CROSS:
        return found + [(other, one) for one, other in itertools.combinations(methods, 2)]
    return found + [(one, methods[0]) for one in methods[1:]]


def tested(
    pairs: Sequence[Pair], metrics: Mapping[str, Metric], lucks: Mapping[str, SeedLuck], seed: int
) -> list[MethodPair]:
    """Every pair by every metric, corrected for all of these tests together."""
    tests = [(pair, metric) for pair in pairs for metric in metrics.values()]
    single = [
        _compared(*pair, metric, seed, len(tests)) for pair, metric in progress(tests, "testing methods", unit="tests")
    ]
    decided = corrected([metric for _, metric in tests], single)
    return [
        MethodPair(
            method=pair[0].name,
            baseline=pair[1].name,
            metrics={metric.name: entry for (of, metric), entry in zip(tests, decided, strict=True) if of is pair},
            luck={name: luck_of_difference(luck, pair) for name, luck in lucks.items()},
        )
        for pair in pairs
    ]


def _compared(one: Contestant, other: Contestant, metric: Metric, seed: int, tests: int) -> MetricComparison:
    ours, theirs = (significance.sum_by_cluster(each.rows(metric), each.clusters(metric)) for each in (one, other))
    are_single = len(one.predictions) == len(other.predictions) == 1 and len(ours) == len(one.clusters(metric))
    return compare_statistics(metric, ours, theirs, seed, tests, exact=metric.is_proportion and are_single)


def seed_luck(values: Sequence[Sequence[float]]) -> SeedLuck | None:
    """What seeds do by themselves, by the values of each method's trainings; None where no method has two.

    The share is that of a one-way analysis of variance with methods as groups: the variance within, over the sum of it
    and of the component between.
    """
    free = sum(len(one) - 1 for one in values)
    if free < 1:
        return None
    within = sum((value - statistics.fmean(one)) ** 2 for one in values for value in one) / free
    share = None
    if len(values) > 1:
        total = sum(map(len, values))
        grand = sum(map(sum, values)) / total
        between = sum(len(one) * (statistics.fmean(one) - grand) ** 2 for one in values) / (len(values) - 1)
        size = (total - sum(len(one) ** 2 for one in values) / total) / (len(values) - 1)
        component = max(0.0, (between - within) / size)
        share = within / (within + component) if within + component > 0 else None
    return SeedLuck(deviation=math.sqrt(within), degrees_of_freedom=free, share=share)


def luck_of_difference(luck: SeedLuck, pair: Pair) -> float:
    """The half width of the 95 % interval of a difference that seeds alone make between two means over trainings.

    A zero line was not trained, so there is no luck in it.
    """
    parts = sum(1 / len(one.predictions) for one in pair if one.is_trained)
    return significance.student_quantile(luck.degrees_of_freedom) * luck.deviation * math.sqrt(parts)
