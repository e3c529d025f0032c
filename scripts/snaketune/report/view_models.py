"""From findings to what the page's templates show: panels with bars, tables, sentences. Numbers become words here."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from snaketune.contracts.evaluate import Comparison, MetricComparison, PairComparison, Score
from snaketune.contracts.report import EvaluationFindings, Measurements, RunReport
from snaketune.evaluate.metric import Metric, by_priority, find, one_per_aspect
from snaketune.report import bake_off, by_size, collect, experiments, forecast_accuracy, formatting, scores_in_words
from snaketune.report.formatting import format_duration, format_value, metrics_of

MAX_PANELS = 4
SMALLEST = 1e-9  # on a logarithmic scale
Metrics = Mapping[str, Metric]
Values = dict[str, Any]  # what a template is rendered with


class Bar(msgspec.Struct, kw_only=True):
    """A value with its interval on a panel's scale, in percent of its width."""

    title: str
    tuned: bool
    value: str
    at: float
    left: float | None
    width: float | None
    difference: str


class Panel(msgspec.Struct, kw_only=True):
    """One metric of several models as bars on one scale."""

    title: str
    description: str
    bars: list[Bar]


class Row(msgspec.Struct, kw_only=True):
    """One model or run in a panel: its score, and its comparison with the base in words."""

    title: str
    tuned: bool
    scores: Mapping[str, Score]
    differences: Mapping[str, str]


class Threshold(msgspec.Struct, kw_only=True):
    """An acceptance limit in words."""

    title: str
    limit: str
    value: str
    met: bool | None


class MetricChange(msgspec.Struct, kw_only=True):
    """A metric before and after in words."""

    title: str
    before: str
    after: str
    difference: str


class ForgettingView(msgspec.Struct, kw_only=True):
    """A tuned variant on the general set."""

    title: str
    tuned: bool
    ratio: float
    within_limit: bool | None
    metrics: list[MetricChange]


class CategoryRow(msgspec.Struct, kw_only=True):
    """The scores of one category: of each metric the base's and the tuned model's."""

    category: str
    rows: int
    cells: list[tuple[str, str]]


class CategoryTable(msgspec.Struct, kw_only=True):
    """Scores by category; metrics: the names of the columns."""

    metrics: list[str]
    rows: list[CategoryRow]


def page_values(report: RunReport, measured: Measurements) -> Values:
    """Everything that page.html needs beside the report."""
    evaluation, metrics = report.evaluation, metrics_of(report.config)
    comparison, settings = evaluation.comparison, experiments.settings_of(report.training.selection)
    return {
        "metric": functools.partial(find, metrics=metrics),
        "metric_names": metric_names(variant.scores.metrics for variant in evaluation.variants),
        "panels": panels(variant_rows(evaluation, metrics), metrics),
        "pairs": pairs_in_words(comparison, metrics),
        "num_tests": comparison.num_tests if comparison else 0,
        "thresholds": thresholds(comparison, metrics),
        "forgetting": forgetting(evaluation, metrics),
        "categories_table": by_category(evaluation, metrics),
        "signatures": comparison.signatures if comparison else {},
        "categories": sorted({row.category for row in evaluation.answers.rows if row.category}),
        "bake_off": bake_off.view(report, measured),
        "contest": bake_off.picture(report, measured),
        "curves": formatting.loss_curves(report.training.experiments, "training"),
        "lengths": lengths(report),
        "settings_of": settings,
        "setting_names": list(next(iter(settings.values()), {})),
        "gains": by_size.kept_gains(report.fidelity),
        "products": by_size.by_size(report.model.files, report.fidelity),
        "sizes": sizes(report),
        "plan_warnings": forecast_accuracy.plan_warnings(report),
        "reasons": _reasons(),
        "configuration": json.dumps(report.config, ensure_ascii=False, indent=1),
        "measured": measured,
        "pilot": measured.decision or {},
        "forecast": forecast_accuracy.forecast_accuracy(report, measured),
    }


def pilot_values(report: RunReport, measured: Measurements) -> Values:
    """Everything that pilot.html needs beside the report."""
    decision = measured.decision
    if decision is not None and decision.decision == "go":
        sentence = f"The pilot says go: the full run would take {format_duration(3600 * decision.forecast.hours)}."
    elif decision is not None:
        reasons = "; ".join(decision.reasons) or "its criteria were not met"
        sentence = f"The pilot says no: {reasons}."
    else:
        sentence = "The pilot has not been decided."
    return {
        "sentence": sentence,
        "pilot": decision or {},
        "forecast": forecast_accuracy.forecast_accuracy(report, measured),
        "curves": formatting.loss_curves([report.training.pilot], "pilot"),
        "lengths": lengths(report),
        "reasons": _reasons(),
    }


def metric_names(scores: Iterable[Mapping[str, Score]]) -> list[str]:
    """Every metric of any model, in the order in which they were made."""
    return list(dict.fromkeys(name for metrics in scores for name in metrics))


def variant_rows(evaluation: EvaluationFindings, metrics: Metrics) -> list[Row]:
    """The variants as the panels show them."""
    comparison = evaluation.comparison
    rows = []
    for variant in evaluation.variants:
        pair = comparison.pair(variant.name, evaluation.base) if comparison else None
        rows.append(
            Row(
                title=variant.title,
                tuned=variant.name == evaluation.tuned,
                scores=variant.scores.metrics,
                differences=_differences(pair, comparison, metrics),
            )
        )
    return rows


def _differences(pair: PairComparison | None, comparison: Comparison | None, metrics: Metrics) -> dict[str, str]:
    if pair is None or comparison is None:
        return {}
    return {
        name: scores_in_words.difference_in_words(find(name, metrics), entry, comparison.num_tests)
        for name, entry in pair.metrics.items()
    }


def panels(rows: Sequence[Row], metrics: Metrics) -> list[Panel]:
    """The leading metrics as bars, of each aspect one first: for each model a dot and its interval on one scale."""
    known = metric_names(row.scores for row in rows)
    leading = one_per_aspect(known, metrics)
    rest = [name for name in by_priority(known, metrics) if name not in leading]
    chosen = [find(name, metrics) for name in [*leading, *rest][:MAX_PANELS]]
    return [
        Panel(
            title=metric.label,
            description=metric.description + (" Logarithmic scale." if is_logarithmic(rows, metric) else ""),
            bars=_bars(rows, metric),
        )
        for metric in chosen
        if metric.aspect != "style"
    ]


def is_logarithmic(rows: Sequence[Row], metric: Metric) -> bool:
    """Whether a metric spans so much that a linear scale would show nothing of its small values."""
    values = [row.scores[metric.name].value for row in rows if metric.name in row.scores]
    return metric.unit == "plain" and min(values) > 0 and max(values) > 20 * min(values)


def _bars(rows: Sequence[Row], metric: Metric) -> list[Bar]:
    entries = [(row, row.scores[metric.name]) for row in rows if metric.name in row.scores]
    place = _scale(metric, [score for _, score in entries], is_logarithmic(rows, metric))
    bars = []
    for row, score in entries:
        left = width = None
        if score.low is not None and score.high is not None:
            left = place(score.low)
            width = round(place(score.high) - left, 2)
        bars.append(
            Bar(
                title=row.title,
                tuned=row.tuned,
                value=format_value(metric, score.value),
                at=place(score.value),
                left=left,
                width=width,
                difference=row.differences.get(metric.name, ""),
            )
        )
    return bars


def _scale(metric: Metric, scores: Sequence[Score], logarithmic: bool) -> Callable[[float], float]:
    """A function from a value to its place on the panel, in percent of the width."""

    def scaled(value: float) -> float:
        return math.log(max(value, SMALLEST)) if logarithmic else value

    ends = [scaled(end) for score in scores for end in (score.value, score.low, score.high) if end is not None]
    least = min(ends) if metric.unit == "plain" else 0.0
    most = max(ends) if metric.upper_bound is None else metric.upper_bound
    margin = 0.04 * (most - least or 1.0)

    def place(value: float) -> float:
        return round(100 * (scaled(value) - least + margin) / (most - least + 2 * margin), 2)

    return place


def pairs_in_words(comparison: Comparison | None, metrics: Metrics) -> list[str]:
    """Each paired comparison in one sentence: what is better, what is worse, and what could not be told."""
    return [_pair_in_words(pair, metrics) for pair in (comparison.pairs if comparison else [])]


def _pair_in_words(pair: PairComparison, metrics: Metrics) -> str:
    parts = []
    for outcome in ("better", "worse"):
        names = [find(name, metrics).in_sentence for name, entry in pair.metrics.items() if entry.outcome == outcome]
        if names:
            parts.append(f"{outcome} in {scores_in_words.listed(names)}")
    rest = sum(entry.outcome not in ("better", "worse") for entry in pair.metrics.values())
    if not parts:
        text = f"no difference that {scores_in_words.rows_in_words(pair)} could show"
    else:
        text = "; ".join(parts) + (f"; no difference shown in the other {rest}" if rest else "")
    words = f"{collect.title(pair.variant)}, against {collect.title(pair.baseline)}: {text}."
    return words[0].upper() + words[1:]


def thresholds(comparison: Comparison | None, metrics: Metrics) -> list[Threshold]:
    """The configuration's acceptance limits against the scores of the file to deploy."""
    found = []
    for result in comparison.thresholds if comparison else []:
        metric = find(result.metric, metrics)
        limit = f"at {'most' if metric.better == 'lower' else 'least'} {format_value(metric, result.limit)}"
        value = format_value(metric, result.value)
        found.append(Threshold(title=metric.label, limit=limit, value=value, met=result.met))
    return found


def forgetting(evaluation: EvaluationFindings, metrics: Metrics) -> list[ForgettingView]:
    """Each tuned variant on the general set: perplexity over the base's, and every metric before and after."""
    kept = evaluation.comparison.forgetting if evaluation.comparison else None
    pairs = [pair for pair in (kept.pairs if kept else []) if pair.variant != "prompted"]
    num_tests = sum(len(pair.metrics) for pair in (kept.pairs if kept else []))
    return [
        ForgettingView(
            title=collect.title(pair.variant),
            tuned=pair.variant == evaluation.tuned,
            ratio=pair.ratio,
            within_limit=pair.within_limit,
            metrics=metric_changes(pair.metrics, metrics, num_tests),
        )
        for pair in pairs
    ]


def metric_changes(
    compared: Mapping[str, MetricComparison], metrics: Metrics, num_tests: int, other: str = "the base"
) -> list[MetricChange]:
    """Every metric of a pair in words."""
    return [
        MetricChange(
            title=metric.label,
            before=format_value(metric, entry.baseline),
            after=format_value(metric, entry.value),
            difference=scores_in_words.difference_in_words(metric, entry, num_tests, other),
        )
        for metric, entry in ((find(name, metrics), entry) for name, entry in compared.items())
    ]


def by_category(evaluation: EvaluationFindings, metrics: Metrics) -> CategoryTable | None:
    """Base and tuned scores in each category of the rows."""
    base, tuned = evaluation.scores_of(evaluation.base), evaluation.scores_of(evaluation.tuned)
    if not base or not tuned or not tuned.categories:
        return None
    names = one_per_aspect(tuned.metrics, metrics)
    rows = []
    for category, scores in tuned.categories.items():
        before = base.categories[category].metrics if category in base.categories else {}
        cells = [(_cell(name, before, metrics), _cell(name, scores.metrics, metrics)) for name in names]
        rows.append(CategoryRow(category=category, rows=scores.rows, cells=cells))
    return CategoryTable(metrics=names, rows=rows)


def _cell(name: str, scores: Mapping[str, Score], metrics: Metrics) -> str:
    return format_value(find(name, metrics), scores[name].value if name in scores else None)


def sizes(report: RunReport) -> str:
    """Quality against size over all products, as a picture; empty where there is one product or none."""
    found = by_size.by_size(report.model.files, report.fidelity)
    points = [
        formatting.SizePoint(each.variant.partition("-")[2], each.bytes, each.kept, each.is_mlx) for each in found
    ]
    return formatting.sizes(points, "sizes") if len(points) > 1 else ""


def lengths(report: RunReport) -> str:
    """How long the kept rows are, as a picture."""
    return formatting.lengths(report.data.report.lengths, "lengths") if report.data.report else ""


def _reasons() -> dict[str, str]:
    from snaketune.data.readers.raw_row import REJECTION_REASONS

    return dict(REJECTION_REASONS)
