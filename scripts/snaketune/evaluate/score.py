"""One artefact's predictions as numbers with confidence intervals: scores.json."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snaketune.errors import ConfigError, EvaluationError
from snaketune.evaluate import significance
from snaketune.evaluate.metrics import CUSTOM, Line, Metric, enabled_metrics
from snaketune.files import StrPath, read_jsonl, write_json

RESAMPLES = 1000


def run(*, predictions: StrPath, scores: StrPath, config: dict[str, Any]) -> None:
    """Score a predictions.jsonl; config: what `settings.scoring` gives."""
    lines = list(read_jsonl(predictions))
    if not lines:
        raise EvaluationError("there are no answers to score", where=str(predictions))
    metrics = enabled_metrics(config["evaluate"])
    values = own_values(lines, config["evaluate"])
    add_own(lines, values)
    signatures = {name: metric.signature for name, metric in metrics.items() if metric.signature}
    write_json(scores, scored(lines, metrics, config["seed"]) | {"signatures": signatures, CUSTOM: values})


def scored(lines: Sequence[Line], metrics: Mapping[str, Metric], seed: int) -> dict[str, Any]:
    """{"rows", "metrics": {name: {"value", "low", "high"}}, "categories": {name: the same two}}."""
    names = sorted({line["category"] for line in lines if line.get("category") is not None})
    parts = {name: [line for line in lines if line.get("category") == name] for name in names}
    return _scored(lines, metrics, seed) | {
        "categories": {name: _scored(part, metrics, seed) for name, part in parts.items()}
    }


def _scored(lines: Sequence[Line], metrics: Mapping[str, Metric], seed: int) -> dict[str, Any]:
    found = {name: measured(metric, lines, seed) for name, metric in metrics.items() if metric.scorable(lines)}
    return {"rows": len(set(rows_of(lines))), "clusters": len(set(cluster_ids(lines))), "metrics": found}


def measured(metric: Metric, lines: Sequence[Line], seed: int) -> dict[str, float | None]:
    """A measure of the lines: its value and its 95 % interval, None for both ends where it cannot be known."""
    lines = metric.scorable(lines)
    stats = metric.row_statistics(lines)
    value = float(metric.aggregate(stats.sum(axis=0)))
    low, high = _interval(metric, value, significance.sum_by_cluster(stats, cluster_ids(lines)), seed)
    return {"value": value, "low": low, "high": high}


def _interval(metric: Metric, value: float, stats: np.ndarray, seed: int) -> tuple[float | None, float | None]:
    if metric.is_proportion:
        return significance.proportion_interval(stats)
    values: np.ndarray = metric.aggregate(significance.bootstrap_sums(stats, RESAMPLES, seed))
    if values.min() < values.max():
        return significance.percentile_interval(values, len(stats))
    if metric.upper_bound is None:
        return None, None
    return significance.unvaried_interval(value, 0.0, metric.upper_bound, len(stats))


def rows_of(lines: Sequence[Line]) -> list[str]:
    """The row that each line belongs to."""
    return [str(line.get("row", line["id"])) for line in lines]


def cluster_ids(lines: Sequence[Line]) -> list[str]:
    """The cluster that each line belongs to, the unit of all that is said of chance.

    Turns of one conversation, rows with the same question and rows of one group are not independent of each other.
    """
    return [str(line.get("cluster", line.get("row", line["id"]))) for line in lines]


def own_values(lines: Sequence[Line], settings: dict[str, Any]) -> dict[str, dict[str, float]]:
    """{measure: {line id: value}} of the configuration's own functions and of similarity."""
    answered = [line for line in lines if "answer" in line and "reference" in line]
    found = {}
    for name, own in settings["metrics"].items():
        function = _function(own["function"], f"evaluate.metrics.{name}")
        found[name] = {line["id"]: _called(function, line, f"evaluate.metrics.{name}") for line in answered}
    if settings["similarity"] and answered:
        from snaketune.engines.llama_cpp import embedding

        pairs = [(line["answer"], line["reference"]) for line in answered]
        near = embedding.similarities(settings["similarity"], pairs)
        found["similarity"] = dict(zip((line["id"] for line in answered), near, strict=True))
    return found


def add_own(lines: Sequence[Line], values: Mapping[str, Mapping[str, float]]) -> None:
    """Put each line's own values where `metrics.measures` looks for them."""
    for line in lines:
        line[CUSTOM] = {name: by_id[line["id"]] for name, by_id in values.items() if line["id"] in by_id}


def _function(named: str, where: str) -> Callable[[Line], Any]:
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


def _called(function: Callable[[Line], Any], line: Line, where: str) -> float:
    try:
        value = float(function(dict(line)))
    except Exception as error:
        raise EvaluationError(
            f"it failed on row {line['id']} ({type(error).__name__}: {error})", where=where, fix="Mend the function"
        ) from error
    if not math.isfinite(value):
        raise EvaluationError(
            f"it says {value} of row {line['id']}", where=where, why="A mean of that means nothing", fix="Mend it"
        )
    return value
