"""Two variants on the same rows: is one better, by how much, how surely, and what would have been noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from snaketune.contracts.evaluate import MetricComparison, Outcome, PairComparison, Prediction
from snaketune.errors import EvaluationError
from snaketune.evaluate import significance
from snaketune.evaluate.metrics import Metric
from snaketune.evaluate.score import RESAMPLES, cluster_ids, row_ids

ALPHA = 0.05
POWER = 0.8
PERMUTATIONS = 10_000


@dataclass(frozen=True)
class PairedPredictions:
    """The predictions of two variants on the same rows, in the same order."""

    variant: str
    baseline: str
    predictions: list[Prediction]
    baseline_predictions: list[Prediction]


def pair_predictions(predictions: Mapping[str, list[Prediction]], variant: str, baseline: str) -> PairedPredictions:
    """The predictions of both on the rows that both have; EvaluationError where they had other rows to answer."""
    of_variant = {one.id: one for one in predictions[variant]}
    of_baseline = {one.id: one for one in predictions[baseline]}
    common = [name for name in of_baseline if name in of_variant]
    changed = [name for name in common if of_variant[name].reference != of_baseline[name].reference]
    if not common or changed:
        raise EvaluationError(
            f"{variant} and {baseline} did not answer the same rows",
            where=f"evaluation/{variant}",
            why="They cannot be compared",
            fix="Delete both predictions.jsonl and run snakemake again",
        )
    return PairedPredictions(
        variant, baseline, [of_variant[name] for name in common], [of_baseline[name] for name in common]
    )


def compare_pairs(pairs: Sequence[PairedPredictions], metrics: Mapping[str, Metric], seed: int) -> list[PairComparison]:
    """Compare every pair by every metric; the outcomes are corrected for all the tests made here together."""
    tests = [
        (pair, metric)
        for pair in pairs
        for metric in metrics.values()
        if metric.better != "neither" and metric.scorable(pair.predictions) and is_comparable(metric, pair)
    ]
    single = [compare_metric(metric, pair, seed, tests=len(tests)) for pair, metric in tests]
    corrected = significance.holm([entry.p for entry in single])
    tested = [
        msgspec.structs.replace(entry, p_corrected=p, outcome=_outcome(metric, entry, p))
        for (_, metric), entry, p in zip(tests, single, corrected, strict=True)
    ]
    return [
        PairComparison(
            variant=pair.variant,
            baseline=pair.baseline,
            rows=len(set(row_ids(pair.predictions))),
            clusters=len(set(cluster_ids(pair.predictions))),
            metrics={metric.name: entry for (of, metric), entry in zip(tests, tested, strict=True) if of is pair},
        )
        for pair in pairs
    ]


def is_comparable(metric: Metric, pair: PairedPredictions) -> bool:
    """Perplexity counts tokens, so only models that cut the answers into the same tokens may be compared by it."""
    return metric.name != "perplexity" or all(
        a.targets == b.targets for a, b in zip(pair.predictions, pair.baseline_predictions, strict=True)
    )


def compare_metric(metric: Metric, pair: PairedPredictions, seed: int, tests: int = 1) -> MetricComparison:
    """Compare two variants by one metric; tests: among how many the level ALPHA is shared out.

    p_corrected and outcome are those of this test alone until `compare_pairs` sets them.
    """
    predictions, baseline_predictions = metric.scorable(pair.predictions), metric.scorable(pair.baseline_predictions)
    clusters = cluster_ids(predictions)
    ours = significance.sum_by_cluster(metric.row_statistics(predictions), clusters)
    theirs = significance.sum_by_cluster(metric.row_statistics(baseline_predictions), clusters)
    value, baseline = float(metric.aggregate(ours.sum(axis=0))), float(metric.aggregate(theirs.sum(axis=0)))
    sums = significance.bootstrap_sums(np.hstack([ours, theirs]), RESAMPLES, seed)
    width = ours.shape[1]
    differences: np.ndarray = metric.aggregate(sums[:, :width]) - metric.aggregate(sums[:, width:])
    low, high = _interval(metric, value - baseline, differences, len(ours))
    exact = metric.is_proportion and len(ours) == len(predictions)
    if exact:
        p = significance.mcnemar_p(ours[:, 0].tolist(), theirs[:, 0].tolist())
    else:
        p = significance.randomization_p(ours, theirs, metric.aggregate, PERMUTATIONS, seed)
    error = float(differences.std(ddof=1))
    least = significance.minimum_detectable_effect(error, alpha=ALPHA, power=POWER, tests=tests)
    if exact:
        least = max(least, significance.fewest_discordant(ALPHA / tests) / len(ours))
    found = MetricComparison(
        value=value,
        baseline=baseline,
        difference=value - baseline,
        low=low,
        high=high,
        test="McNemar, exact" if exact else "paired approximate randomization",
        p=p,
        p_corrected=p,
        outcome="no difference shown",
        minimum_detectable_effect=least or None,
    )
    return msgspec.structs.replace(found, outcome=_outcome(metric, found, p))


def _interval(
    metric: Metric, difference: float, differences: np.ndarray, clusters: int
) -> tuple[float | None, float | None]:
    if differences.min() < differences.max():
        return significance.percentile_interval(differences, clusters)
    if metric.upper_bound is None:
        return None, None
    return significance.unvaried_interval(difference, -metric.upper_bound, metric.upper_bound, clusters)


def _outcome(metric: Metric, entry: MetricComparison, p: float) -> Outcome:
    """Better or worse only where test and interval agree.

    The test alone also notices another length of the answers, by which a metric of the whole corpus may differ where
    hardly a row does.
    """
    if p >= ALPHA or (entry.low is not None and entry.high is not None and entry.low <= 0 <= entry.high):
        return "no difference shown"
    return "better" if (entry.difference > 0) == (metric.better == "higher") else "worse"
