"""Scores the predictions of one model variant, with confidence intervals: scores.json."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from snaketune.contracts.evaluate import Prediction, Score, Scores, SetScores, VariantScores
from snaketune.errors import ConfigError, EvaluationError
from snaketune.evaluate import significance
from snaketune.evaluate.metric import Metric
from snaketune.evaluate.run_metrics import MetricSettings, enabled_metrics
from snaketune.evaluate.step_config import ScoringConfig
from snaketune.files import StrPath, read_jsonl, write_json

RESAMPLES = 1000


def run(*, predictions: StrPath, scores: StrPath, config: ScoringConfig) -> None:
    """Score a predictions.jsonl."""
    found = list(read_jsonl(predictions, Prediction))
    if not found:
        raise EvaluationError("there are no answers to score", where=str(predictions))
    metrics = enabled_metrics(config.settings)
    values = custom_metric_values(found, config.settings)
    scored = score_predictions(attach_custom_values(found, values), metrics, config.seed)
    signatures = {name: metric.signature for name, metric in metrics.items() if metric.signature}
    write_json(
        scores,
        Scores(
            rows=scored.rows,
            clusters=scored.clusters,
            metrics=scored.metrics,
            categories=scored.categories,
            signatures=signatures,
            custom_values=values,
        ),
    )


def score_predictions(predictions: Sequence[Prediction], metrics: Mapping[str, Metric], seed: int) -> VariantScores:
    """Every metric of the predictions with its interval, for all of them and for each category."""
    names = sorted({one.category for one in predictions if one.category is not None})
    parts = {name: [one for one in predictions if one.category == name] for name in names}
    whole = _score_set(predictions, metrics, seed)
    return VariantScores(
        rows=whole.rows,
        clusters=whole.clusters,
        metrics=whole.metrics,
        categories={name: _score_set(part, metrics, seed) for name, part in parts.items()},
    )


def _score_set(predictions: Sequence[Prediction], metrics: Mapping[str, Metric], seed: int) -> SetScores:
    return SetScores(
        rows=len(set(row_ids(predictions))),
        clusters=len(set(cluster_ids(predictions))),
        metrics={
            name: score_with_interval(metric, predictions, seed)
            for name, metric in metrics.items()
            if metric.scorable(predictions)
        },
    )


def score_with_interval(metric: Metric, predictions: Sequence[Prediction], seed: int) -> Score:
    """A metric's value and its 95 % interval, None for both ends where it cannot be known."""
    predictions = metric.scorable(predictions)
    return score_statistics(metric, metric.row_statistics(predictions), cluster_ids(predictions), seed)


def score_statistics(metric: Metric, stats: np.ndarray, clusters: Sequence[str], seed: int) -> Score:
    """The same of the rows' statistics [rows, k] and the cluster of each row."""
    value = float(metric.aggregate(stats.sum(axis=0)))
    low, high = _interval(metric, value, significance.sum_by_cluster(stats, clusters), seed)
    return Score(value=value, low=low, high=high)


def _interval(metric: Metric, value: float, stats: np.ndarray, seed: int) -> tuple[float | None, float | None]:
    if metric.is_proportion:
        return significance.proportion_interval(stats)
    values: np.ndarray = metric.aggregate(significance.bootstrap_sums(stats, RESAMPLES, seed))
    if values.min() < values.max():
        return significance.percentile_interval(values, len(stats))
    if metric.upper_bound is None:
        return None, None
    return significance.unvaried_interval(value, 0.0, metric.upper_bound, len(stats))


def row_ids(predictions: Sequence[Prediction]) -> list[str]:
    """The row that each prediction belongs to."""
    return [one.row or one.id for one in predictions]


def cluster_ids(predictions: Sequence[Prediction]) -> list[str]:
    """The cluster that each prediction belongs to, the unit that is resampled.

    Turns of one conversation, rows with the same prompt and rows of one group are not independent of each other.
    """
    return [one.cluster or one.row or one.id for one in predictions]


def custom_metric_values(predictions: Sequence[Prediction], settings: MetricSettings) -> dict[str, dict[str, float]]:
    """{metric: {prediction id: value}} of the custom metrics and of similarity."""
    scorable = [one for one in predictions if one.answer is not None and one.reference is not None]
    found = {}
    for name, custom in settings.metrics.items():
        function = _function(custom.function, f"evaluate.metrics.{name}")
        found[name] = {one.id: _call(function, one, f"evaluate.metrics.{name}") for one in scorable}
    if settings.similarity and scorable:
        from snaketune.engines.llama_cpp import gguf_model

        pairs = [(one.answer or "", one.reference or "") for one in scorable]
        near = gguf_model.similarities(settings.similarity, pairs)
        found["similarity"] = dict(zip((one.id for one in scorable), near, strict=True))
    return found


def attach_custom_values(
    predictions: Sequence[Prediction], values: Mapping[str, Mapping[str, float]]
) -> list[Prediction]:
    """The predictions with their values of the custom metrics, where `CustomMetric` reads them."""
    return [
        msgspec.structs.replace(
            one, custom_values={name: by_id[one.id] for name, by_id in values.items() if one.id in by_id}
        )
        for one in predictions
    ]


def _function(named: str, where: str) -> Callable[[Any], Any]:
    module, name = named.split(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{named} cannot be imported ({error})",
            where=where,
            fix="Name a module that lies in the folder snakemake runs in, or is installed, and a function in it",
        ) from error


def _call(function: Callable[[Any], Any], prediction: Prediction, where: str) -> float:
    try:
        value = float(function(msgspec.to_builtins(prediction)))
    except Exception as error:
        raise EvaluationError(
            f"it failed on row {prediction.id} ({type(error).__name__}: {error})",
            where=where,
            fix="Correct the function",
        ) from error
    if not math.isfinite(value):
        raise EvaluationError(
            f"it says {value} of row {prediction.id}", where=where, why="A mean of that means nothing", fix="Correct it"
        )
    return value
