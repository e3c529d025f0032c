"""One artefact's predictions as numbers with confidence intervals: scores.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from snaketune.errors import EvaluationError
from snaketune.evaluate import statistics
from snaketune.evaluate.metrics import METRICS, Line, Metric, used
from snaketune.files import StrPath, read_jsonl, write_json

RESAMPLES = 1000


def run(*, predictions: StrPath, scores: StrPath, config: dict[str, Any]) -> None:
    """Score a predictions.jsonl; config: the section `evaluate` and the seed."""
    lines = list(read_jsonl(predictions))
    if not lines:
        raise EvaluationError("there are no answers to score", where=str(predictions))
    write_json(scores, scored(lines, config["seed"]) | {"signatures": signatures(METRICS.values())})


def scored(lines: Sequence[Line], seed: int) -> dict[str, Any]:
    """{"rows", "metrics": {name: {"value", "low", "high"}}, "categories": the same for each category}."""
    result = _scored(lines, seed)
    names = sorted({line["category"] for line in lines if line.get("category") is not None})
    result["categories"] = {
        name: _scored([line for line in lines if line.get("category") == name], seed) for name in names
    }
    return result


def _scored(lines: Sequence[Line], seed: int) -> dict[str, Any]:
    found = {name: measured(metric, lines, seed) for name, metric in METRICS.items() if used(metric, lines)}
    return {"rows": len(lines), "metrics": found}


def measured(metric: Metric, lines: Sequence[Line], seed: int) -> dict[str, float]:
    """A measure of the lines: its value and its 95 % interval."""
    stats = metric.rows(used(metric, lines))
    value = float(metric.value(stats.sum(axis=0)))
    if metric.share:
        low, high = statistics.wilson(float(stats[:, 0].sum()), len(stats))
    else:
        values: np.ndarray = metric.value(statistics.resamples(stats, RESAMPLES, seed))
        low, high = statistics.interval(values, len(stats))
    return {"value": value, "low": low, "high": high}


def signatures(metrics: Any) -> dict[str, str]:
    """How each measure was made, where there is more than one way."""
    return {metric.name: metric.signature for metric in metrics if metric.signature}
