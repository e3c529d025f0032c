"""The variants against each other: differences with intervals, paired tests, forgetting, and what may be concluded.

A pair of variants answers the same rows: is one better, by how much, how surely, and what would have been noticed.
Forgetting is what the tuned variants can no longer do: their scores on the general set against the base's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from snaketune.config.products import is_product
from snaketune.contracts.evaluate import (
    Comparison,
    Forgetting,
    ForgettingPair,
    MetricComparison,
    Outcome,
    PairComparison,
    Prediction,
    Scores,
)
from snaketune.errors import EvaluationError
from snaketune.evaluate import significance
from snaketune.evaluate.metric import Metric, by_priority
from snaketune.evaluate.run_metrics import enabled_metrics
from snaketune.evaluate.score import RESAMPLES, attach_custom_values, cluster_ids, row_ids, score_predictions
from snaketune.evaluate.significance import ALPHA, CONFIDENCE, POWER
from snaketune.evaluate.step_config import ComparisonConfig
from snaketune.evaluate.thresholds import checked, recommended
from snaketune.files import StrPath, read_json, read_jsonl, replacing, write_json
from snaketune.runtime.events import report_result
from snaketune.runtime.progress import progress


def compared(
    predictions: Mapping[str, list[Prediction]], metrics: Mapping[str, Metric], limit: float | None, seed: int
) -> Forgetting | None:
    """Compare every variant with the base on the general set; None without one or without the base's answers to it."""
    if "base" not in predictions:
        return None
    kept = {name: metric for name, metric in metrics.items() if metric.in_forgetting}
    scores = {name: score_predictions(found, kept, seed) for name, found in predictions.items()}
    pairs = [pair_predictions(predictions, name, "base") for name in predictions if name != "base"]
    return Forgetting(
        rows=scores["base"].rows,
        limit=limit,
        variants=scores,
        pairs=[
            ForgettingPair(
                **msgspec.structs.asdict(pair), ratio=ratio, within_limit=None if limit is None else ratio <= limit
            )
            for pair in compare_pairs(pairs, kept, seed)
            for ratio in [_ratio(pair.metrics)]
        ],
    )


def _ratio(metrics: Mapping[str, MetricComparison]) -> float:
    """Perplexity over the base's; of other tokens, per byte: 2 to the power of the difference in bits."""
    if "perplexity" in metrics:
        return metrics["perplexity"].value / metrics["perplexity"].baseline
    return float(2 ** metrics["bits_per_byte"].difference)


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
    found = common_rows({baseline: predictions[baseline], variant: predictions[variant]})
    return PairedPredictions(variant, baseline, found[variant], found[baseline])


def common_rows(predictions: Mapping[str, list[Prediction]]) -> dict[str, list[Prediction]]:
    """The predictions of each on the rows that all have, in the order of the first.

    EvaluationError where there is none, or where they had other answers to give.
    """
    by_id = {name: {one.id: one for one in found} for name, found in predictions.items()}
    first, *others = by_id
    common = [row for row in by_id[first] if all(row in by_id[name] for name in others)]
    for name in others:
        changed = any(by_id[name][row].reference != by_id[first][row].reference for row in common)
        if not common or changed:
            raise EvaluationError(
                f"{name} and {first} did not answer the same rows",
                where=f"evaluation/{name}",
                why="They cannot be compared",
                fix="Delete both predictions.jsonl and run snakemake again",
            )
    return {name: [found[row] for row in common] for name, found in by_id.items()}


def compare_pairs(pairs: Sequence[PairedPredictions], metrics: Mapping[str, Metric], seed: int) -> list[PairComparison]:
    """Compare every pair by every metric; the outcomes are corrected for all the tests made here together."""
    tests = [
        (pair, metric)
        for pair in pairs
        for metric in metrics.values()
        if metric.better != "neither" and metric.scorable(pair.predictions) and is_comparable(metric, pair)
    ]
    single = [
        compare_metric(metric, pair, seed, tests=len(tests))
        for pair, metric in progress(tests, "testing differences", unit="tests")
    ]
    tested = corrected([metric for _, metric in tests], single)
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


def corrected(metrics: Sequence[Metric], entries: Sequence[MetricComparison]) -> list[MetricComparison]:
    """The comparisons, each by the metric in its place, with p-values and outcomes corrected for all of them."""
    ps = significance.holm([entry.p for entry in entries])
    return [
        msgspec.structs.replace(entry, p_corrected=p, outcome=outcome(metric, entry, p))
        for metric, entry, p in zip(metrics, entries, ps, strict=True)
    ]


def is_comparable(metric: Metric, pair: PairedPredictions) -> bool:
    """Perplexity counts tokens, so only models that cut the answers into the same tokens may be compared by it."""
    return metric.name != "perplexity" or all(
        a.num_target_tokens == b.num_target_tokens
        for a, b in zip(pair.predictions, pair.baseline_predictions, strict=True)
    )


def compare_metric(metric: Metric, pair: PairedPredictions, seed: int, tests: int = 1) -> MetricComparison:
    """Compare two variants by one metric; tests: among how many the level ALPHA is shared out.

    p_corrected and outcome are those of this test alone until `compare_pairs` sets them.
    """
    predictions, baseline_predictions = metric.scorable(pair.predictions), metric.scorable(pair.baseline_predictions)
    clusters = cluster_ids(predictions)
    ours = significance.sum_by_cluster(metric.row_statistics(predictions), clusters)
    theirs = significance.sum_by_cluster(metric.row_statistics(baseline_predictions), clusters)
    exact = metric.is_proportion and len(ours) == len(predictions)
    return compare_statistics(metric, ours, theirs, seed, tests, exact=exact)


def compare_statistics(
    metric: Metric, ours: np.ndarray, theirs: np.ndarray, seed: int, tests: int = 1, *, exact: bool = False
) -> MetricComparison:
    """The same of statistics [clusters, k]; exact: whether each cluster is one row that is either right or wrong."""
    value, baseline = float(metric.aggregate(ours.sum(axis=0))), float(metric.aggregate(theirs.sum(axis=0)))
    sums = significance.bootstrap_sums(np.hstack([ours, theirs]), RESAMPLES, seed)
    width = ours.shape[1]
    differences: np.ndarray = metric.aggregate(sums[:, :width]) - metric.aggregate(sums[:, width:])
    low, high = _interval(metric, value - baseline, differences, len(ours))
    if exact:
        p = significance.mcnemar_p(ours[:, 0].tolist(), theirs[:, 0].tolist())
    else:
        p = significance.randomization_p(ours, theirs, metric.aggregate, PERMUTATIONS, seed)
    error = float(differences.std(ddof=1))
    least = significance.minimum_detectable_effect(error, tests=tests)
    if exact:
        least = max(least, significance.fewest_discordant(tests) / len(ours))
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
    return msgspec.structs.replace(found, outcome=outcome(metric, found, p))


def _interval(
    metric: Metric, difference: float, differences: np.ndarray, clusters: int
) -> tuple[float | None, float | None]:
    if differences.min() < differences.max():
        return significance.percentile_interval(differences, clusters)
    if metric.upper_bound is None:
        return None, None
    return significance.unvaried_interval(difference, -metric.upper_bound, metric.upper_bound, clusters)


def outcome(metric: Metric, entry: MetricComparison, p: float) -> Outcome:
    """Better or worse only where test and interval agree.

    The test alone also notices another length of the answers, by which a metric of the whole corpus may differ where
    hardly a row does.
    """
    if p >= ALPHA or (entry.low is not None and entry.high is not None and entry.low <= 0 <= entry.high):
        return "no difference shown"
    return "better" if (entry.difference > 0) == (metric.better == "higher") else "worse"


COLUMNS = (
    "variant",
    "baseline",
    "metric",
    "rows",
    "clusters",
    "value",
    "baseline_value",
    "difference",
    "low",
    "high",
    "test",
    "p",
    "p_corrected",
    "outcome",
    "minimum_detectable_effect",
)


def run(
    *,
    predictions: Sequence[StrPath],
    scores: Sequence[StrPath],
    comparison: StrPath,
    table: StrPath,
    config: ComparisonConfig,
    general: Sequence[StrPath] = (),
) -> None:
    """Compare variants, each named by the folder that holds its files.

    general: the variants' answers to the general set; table: the pairs as CSV.
    """
    seed = config.seed
    metrics = enabled_metrics(config.settings)
    scores_of = {Path(path).parent.name: read_json(path, Scores) for path in scores}
    by_variant = {
        name: attach_custom_values(found, scores_of[name].custom_values)
        for name, found in _read_by_variant(predictions).items()
    }
    variants = {name: found.without_custom_values() for name, found in scores_of.items()}
    pairs = [pair_predictions(by_variant, *names) for names in comparison_pairs(list(by_variant))]
    tested = compare_pairs(pairs, metrics, seed)
    limit = config.forgetting.limit
    found = Comparison(
        confidence=CONFIDENCE,
        alpha=ALPHA,
        power=POWER,
        resamples=RESAMPLES,
        permutations=PERMUTATIONS,
        correction="Holm",
        num_tests=sum(len(pair.metrics) for pair in tested),
        directions={name: metric.better for name, metric in metrics.items()},
        signatures={name: metric.signature for name, metric in metrics.items() if metric.signature},
        variants=variants,
        pairs=tested,
        forgetting=compared(_read_by_variant(general), metrics, limit, seed),
        thresholds=checked(config.thresholds, variants, metrics),
    )
    write_json(comparison, found)
    write_table(table, found)
    report_result(summary_sentence(found, metrics))


def summary_sentence(comparison: Comparison, metrics: Mapping[str, Metric]) -> str:
    """Say in half a sentence how the last variant of the chain compares with the base, by the leading metric."""
    pair = next((pair for pair in reversed(comparison.pairs) if pair.baseline == "base" and pair.metrics), None)
    if pair is None:
        return "nothing to compare with the base"
    name = by_priority(pair.metrics, metrics)[0]
    metric, result = metrics[name], pair.metrics[name]
    values = [f"{100 * v:.1f} %" if metric.unit == "share" else f"{v:.4g}" for v in (result.value, result.baseline)]
    return f"{pair.variant}: {metric.in_sentence} {values[0]}, the base {values[1]}: {result.outcome}"


def comparison_pairs(variants: Sequence[str]) -> list[tuple[str, str]]:
    """Which variant is compared with which: each with the base, each product with the adapter it comes from.

    The file to deploy is also compared with the prompted base and with the run before, where these were measured.
    """
    pairs = [(name, "base") for name in variants if name != "base" and "base" in variants]
    pairs += [(name, "adapter") for name in variants if is_product(name) and "adapter" in variants]
    best = recommended(variants)
    return pairs + [(best, other) for other in ("prompted", "previous") if other in variants and other != best]


def write_table(path: StrPath, comparison: Comparison) -> None:
    """Write every metric of every pair as a line of CSV."""
    import pandas

    rows: Iterable[dict[str, object]] = (
        {"variant": pair.variant, "baseline": pair.baseline, "metric": name, "rows": pair.rows}
        | {"clusters": pair.clusters, "baseline_value": entry.baseline}
        | {key: value for key, value in msgspec.structs.asdict(entry).items() if key != "baseline"}
        for pair in comparison.pairs
        for name, entry in pair.metrics.items()
    )
    with replacing(path) as temporary:
        pandas.DataFrame(list(rows), columns=list(COLUMNS)).to_csv(temporary, index=False, lineterminator="\n")


def _read_by_variant(paths: Sequence[StrPath]) -> dict[str, list[Prediction]]:
    return {Path(path).parent.name: list(read_jsonl(path, Prediction)) for path in paths}
