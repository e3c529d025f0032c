"""The bake-off as the page shows it: one table, one picture of quality against time, and each pair in words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import msgspec

from snaketune.contracts.bake_off import BakeOff, Method, MethodPair
from snaketune.contracts.evaluate import Score
from snaketune.contracts.report import Measurements, RunReport
from snaketune.contracts.train import TrainingTiming
from snaketune.evaluate.metric import Metric, find
from snaketune.report import formatting, scores_in_words
from snaketune.report.formatting import (
    FAINT,
    INK,
    SERIES,
    format_difference,
    format_value,
)

Metrics = Mapping[str, Metric]
ENGINE_PACKAGES = ("mlx", "mlx-lm", "torch", "transformers", "peft")
SMALLEST_DOT, LARGEST_DOT = 40.0, 400.0  # square points


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a method's trainings took, as the mean over them; resumed: whether one was interrupted."""

    seconds: float
    cpu_seconds: float
    tokens_per_second: float
    peak_resident_bytes: float
    resumed: bool


class MethodRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table, in words. number: of its dot in the picture, None for a zero line."""

    name: str
    how: str
    seeds: int
    validation_loss: str
    loss: str
    loss_interval: str
    measure: str
    measure_interval: str
    by_seed: str
    cost: Cost | None
    adapter_bytes: int | None
    versions: str
    differences: list[str]
    number: int | None = None
    is_on_front: bool = False


class BakeOffView(msgspec.Struct, frozen=True, kw_only=True):
    """The section; measure: the title of the deciding metric."""

    sentence: str
    remarks: list[str]
    measure: str
    likelihood: str
    rows: list[MethodRow]
    pairs: list[str]
    num_tests: int
    correction: str


def view(report: RunReport, measured: Measurements) -> BakeOffView | None:
    """The section of a run that had a bake-off, None for any other."""
    found = report.bake_off
    if found is None:
        return None
    metrics = formatting.metrics_of(report.config)
    deciding = find(found.measure or found.likelihood, metrics)
    costs = {method.name: _cost(method, measured.training) for method in found.methods}
    front = pareto_front(found, costs, deciding)
    versions = report.provenance.get("versions", {}) if report.provenance else {}
    own = ", ".join(f"{name} {versions[name]}" for name in ENGINE_PACKAGES if name in versions)
    trained = [method for method in found.methods if method.is_trained]
    return BakeOffView(
        sentence=found.conclusion,
        remarks=[*_against_zero_lines(found, deciding), _luck(found, deciding)],
        measure=deciding.label if found.measure else "",
        likelihood="loss" if found.likelihood == "perplexity" else "bits per byte",
        rows=[
            msgspec.structs.replace(
                _row(method, costs[method.name], deciding, own),
                number=trained.index(method) + 1 if method.is_trained else None,
                is_on_front=method.name in front,
            )
            for method in found.methods
        ],
        pairs=[_pair_in_words(pair, metrics, found) for pair in found.pairs],
        num_tests=found.num_tests,
        correction=found.correction,
    )


def _cost(method: Method, timings: Mapping[str, TrainingTiming]) -> Cost | None:
    known = [timings[name] for name in method.experiments if name in timings]
    if not known:
        return None
    return Cost(
        seconds=statistics.fmean(one.seconds for one in known),
        cpu_seconds=statistics.fmean(one.cpu_seconds for one in known),
        tokens_per_second=statistics.fmean(one.tokens_per_second for one in known),
        peak_resident_bytes=statistics.fmean(one.peak_resident_bytes for one in known),
        resumed=any(one.resumed_from for one in known),
    )


def pareto_front(found: BakeOff, costs: Mapping[str, Cost | None], metric: Metric) -> set[str]:
    """The methods to which none is as good in less time, or better in as little; a zero line takes no time."""
    sign = 1 if found.measure and metric.better == "higher" else -1
    points: dict[str, tuple[float, float]] = {}
    for method in found.methods:
        cost = costs[method.name]
        if cost is not None or not method.is_trained:
            points[method.name] = sign * _deciding(method).value, cost.seconds if cost else 0.0
    return {
        name
        for name, (quality, seconds) in points.items()
        if not any(
            other_quality >= quality
            and other_seconds <= seconds
            and (other_quality, other_seconds) != (quality, seconds)
            for other_quality, other_seconds in points.values()
        )
    }


def _deciding(method: Method) -> Score:
    return method.measure or method.loss


def _row(method: Method, cost: Cost | None, metric: Metric, own: str) -> MethodRow:
    measure, trainer = method.measure, method.trainer
    how = "not trained" if not method.is_trained else f"{method.method}, by {trainer.title if trainer else 'snaketune'}"
    versions = ", ".join(f"{name} {version}" for name, version in trainer.versions.items()) if trainer else own
    return MethodRow(
        name=method.name,
        how=how,
        seeds=len(method.experiments),
        validation_loss=f"{method.validation_loss:.4f}" if method.validation_loss is not None else "–",
        loss=f"{method.loss.value:.4f}",
        loss_interval=_interval(method.loss, lambda value: f"{value:.3f}"),
        measure=format_value(metric, measure.value) if measure else "–",
        measure_interval=_interval(measure, lambda value: format_value(metric, value)) if measure else "",
        by_seed=_by_seed(method, metric),
        cost=cost,
        adapter_bytes=method.adapter_bytes,
        versions=versions if method.is_trained else "",
        differences=trainer.differences if trainer else [],
    )


def _interval(score: Score, shown: Any) -> str:
    return f"{shown(score.low)} to {shown(score.high)}" if score.low is not None and score.high is not None else ""


def _by_seed(method: Method, metric: Metric) -> str:
    """The lowest and the highest of several trainings."""
    if len(method.experiments) < 2:
        return ""
    values = method.measures or method.losses
    ends = (format_value(metric, end) if method.measures else f"{end:.4f}" for end in (min(values), max(values)))
    return f"{len(values)} seeds: {' to '.join(ends)}"


def _against_zero_lines(found: BakeOff, metric: Metric) -> list[str]:
    """How many methods are shown to be better than what no training has changed."""
    sentences = []
    total = sum(method.is_trained for method in found.methods)
    for line in (method.name for method in found.methods if not method.is_trained):
        outcomes = [pair.metrics[metric.name].outcome for pair in found.pairs if pair.baseline == line]
        better, worse = outcomes.count("better"), outcomes.count("worse")
        also = f", {worse} worse" if worse else ""
        sentences.append(f"Against the {line}, {better} of {total} methods are shown to be better{also}.")
    return sentences


def _luck(found: BakeOff, metric: Metric) -> str:
    luck = found.luck.get(metric.name)
    if luck is None:
        return (
            "Each method was trained with one seed. Two seeds of one method come out differently too, so a small "
            "difference may be luck; grid: {seed: [1, 2, 3]} trains each method with every seed and says how much."
        )
    spread = format_difference(metric, luck.deviation)
    words = f"Seeds: trainings that differ in nothing else differ by {spread} (standard deviation)"
    if luck.share is None:
        return f"{words}."
    return f"{words}; of the variance between trainings of different methods, {100 * luck.share:.0f} % is that luck."


def _pair_in_words(pair: MethodPair, metrics: Metrics, found: BakeOff) -> str:
    parts = []
    for name, entry in pair.metrics.items():
        metric = find(name, metrics)
        words = scores_in_words.difference_in_words(metric, entry, found.num_tests, pair.baseline)
        by_luck = pair.luck.get(name)
        if by_luck is not None:
            doubt = ", which is more than this difference" if by_luck >= abs(entry.difference) else ""
            words += f"; seeds alone make up to {format_difference(metric, by_luck)}{doubt}"
        parts.append(f"{metric.in_sentence} {words}")
    return f"{pair.method}: {'. '.join(part[0].upper() + part[1:] for part in parts)}."


def picture(report: RunReport, measured: Measurements) -> str:
    """Quality against time as SVG: a dot for each method, as large as its memory, the front joined by a line."""
    found = report.bake_off
    if found is None:
        return ""
    metric = find(found.measure or found.likelihood, formatting.metrics_of(report.config))
    costs = {method.name: _cost(method, measured.training) for method in found.methods}
    front = pareto_front(found, costs, metric)
    trained = [method for method in found.methods if method.is_trained]
    known = {method.name: cost for method in trained if (cost := costs[method.name])}
    if not known:
        return ""
    scale = 100 if found.measure and metric.unit == "share" else 1
    most = max(cost.peak_resident_bytes for cost in known.values()) or 1.0

    def draw(axes: Any) -> None:
        for number, method in enumerate(trained, 1):
            cost = known.get(method.name)
            if cost is None:
                continue
            color, score = SERIES[number % len(SERIES)], _deciding(method)
            size = max(SMALLEST_DOT, LARGEST_DOT * cost.peak_resident_bytes / most)
            value = scale * score.value
            if score.low is not None and score.high is not None:
                axes.plot([cost.seconds] * 2, [scale * score.low, scale * score.high], color=color, linewidth=1)
            filled = color if method.name in front else "none"
            axes.scatter([cost.seconds], [value], s=size, facecolors=filled, edgecolors=color, linewidths=1.6, zorder=3)
            axes.annotate(
                f"{number} {method.name}", (cost.seconds, value), xytext=(9, 7), textcoords="offset points", fontsize=9
            )
        on_front = sorted((known[m.name].seconds, scale * _deciding(m).value) for m in trained if m.name in front)
        if len(on_front) > 1:
            axes.plot(*zip(*on_front, strict=True), color=INK, linewidth=1, linestyle="--")
        for value, name in _zero_lines(found, scale):
            axes.axhline(value, color=FAINT, linewidth=1.4, linestyle=":")
            axes.annotate(name, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9)
        axes.set_xlim(0, 1.25 * max(cost.seconds for cost in known.values()))  # room for the names
        axes.set_xlabel("seconds of training")
        unit = ", %" if scale == 100 else "" if found.measure else ", nats per token"
        axes.set_ylabel(f"{metric.label if found.measure else 'loss on the test rows'}{unit}")

    described = "Quality of each method against the seconds of its training; larger dots took more memory"
    return formatting.svg(draw, "bake-off", described, height=4.2)


def _zero_lines(found: BakeOff, scale: int) -> list[tuple[float, str]]:
    """The height of each zero line and its name; lines too near for two names share one."""
    lines: list[tuple[float, str]] = []
    values = [scale * _deciding(method).value for method in found.methods]
    near = 0.04 * (max(values) - min(values))
    for method in found.methods:
        value = scale * _deciding(method).value
        if method.is_trained:
            continue
        if lines and abs(lines[-1][0] - value) <= near:
            lines[-1] = lines[-1][0], f"{lines[-1][1]}, {method.name}"
        else:
            lines.append((value, method.name))
    return lines
