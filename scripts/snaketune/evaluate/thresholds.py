"""The limits that a run was to meet, and whether it did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from snaketune.config.products import MLX, is_product
from snaketune.contracts.evaluate import Comparison, ForgettingPair, Score, ThresholdResult, VariantScores
from snaketune.errors import ConfigError, EvaluationError
from snaketune.evaluate.metric import Metric
from snaketune.evaluate.run_metrics import did_you_mean_metric
from snaketune.files import StrPath, read_json, write_text


def checked(
    targets: Mapping[str, float], scores: Mapping[str, VariantScores], metrics: Mapping[str, Metric]
) -> list[ThresholdResult]:
    """Hold the scores of the variant to deploy against each target."""
    variant = recommended(scores)
    return [
        _met(name, metrics[name], limit, variant, scores[variant].metrics.get(name))
        for name, limit in checked_names(targets, metrics).items()
    ]


def recommended(variants: Iterable[str]) -> str:
    """The first GGUF, or what comes nearest to it."""
    names = list(variants)
    products = sorted(filter(is_product, names), key=lambda name: name.startswith(MLX))
    return next(name for name in [*products, "fused", "adapter", "pilot", *names] if name in names)


def checked_names(targets: Mapping[str, float], metrics: Mapping[str, Metric]) -> Mapping[str, float]:
    """The targets; a ConfigError for one that is no measure, or is on another scale."""
    for name, limit in targets.items():
        where = f"evaluate.thresholds.{name}"
        metric = usable_metric(name, metrics, where)
        if metric.unit == "points" and 0 < limit <= 1:
            raise ConfigError(
                f"{name} is measured from 0 to 100, and the limit is {limit:g}",
                where=where,
                why="Nearly any model would meet it, or none",
                fix=f"Write {100 * limit:g} for {100 * limit:g} points",
            )
        if metric.unit == "share" and limit > 1:
            raise ConfigError(
                f"{name} is measured from 0 to 1, and the limit is {limit:g}",
                where=where,
                why="No model could meet it, or any would",
                fix=f"Write {limit / 100:g} for {limit:g} %",
            )
    return targets


def usable_metric(name: str, metrics: Mapping[str, Metric], where: str, also: Sequence[str] = ()) -> Metric:
    """The metric of that name, as something to choose or to accept by; ConfigError at the key `where` if it is none.

    also: other names that are allowed there.
    """
    possible = [*also, *(known for known, metric in metrics.items() if metric.better != "neither")]
    if name not in metrics:
        raise ConfigError(
            f'there is no metric "{name}"{did_you_mean_metric(name, metrics)}',
            where=where,
            fix=f"Name one of {', '.join(possible)}",
        )
    if metrics[name].better == "neither":
        raise ConfigError(
            f"{name} has no better direction",
            where=where,
            why=metrics[name].description,
            fix=f"Name one of {', '.join(possible)}",
        )
    return metrics[name]


def _met(name: str, metric: Metric, limit: float, variant: str, score: Score | None) -> ThresholdResult:
    value = None if score is None else score.value
    met = None if value is None else value >= limit if metric.better == "higher" else value <= limit
    return ThresholdResult(metric=name, limit=limit, variant=variant, value=value, met=met)


def check(comparison: StrPath, passed: StrPath) -> None:
    """The gate: write `passed` when every target and the forgetting limit are met, else an EvaluationError with all."""
    found = read_json(comparison, Comparison)
    missed = [
        f"{one.metric} of {one.variant} is {_shown(one.value)}, the target is {one.limit:g}"
        for one in found.thresholds
        if not one.met
    ]
    if found.forgetting and found.forgetting.limit is not None:
        best = recommended(found.forgetting.variants)
        missed += [
            _forgotten(pair, found.forgetting.limit)
            for pair in found.forgetting.pairs
            if pair.variant == best and not pair.within_limit
        ]
    if missed:
        raise EvaluationError(
            "the run does not meet its limits:\n" + "".join(f"  - {one}\n" for one in missed),
            where="evaluate.thresholds, evaluate.forgetting.limit",
            why="The report shows them beside all other scores.",
            fix="Train on more or better rows, change the limits, or set evaluate.on_missed_threshold to report",
        )
    write_text(passed, "every target is met\n")


def _forgotten(pair: ForgettingPair, limit: float) -> str:
    times = f"{pair.ratio:.2f} times the base's"
    return f"perplexity of {pair.variant} on the general set is {times}, the limit is {limit:g}"


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"
