"""Two artefacts on the same rows: is one better, by how much, how surely, and what would have been noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from snaketune.errors import EvaluationError
from snaketune.evaluate import sentences, significance
from snaketune.evaluate.metrics import Line, Metric
from snaketune.evaluate.score import RESAMPLES, rows_of

LEVEL = 0.05
POWER = 0.8
TRIALS = 10_000
NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True)
class Paired:
    """Two artefacts' lines on the same rows, in the same order."""

    artefact: str
    against: str
    ours: list[Line]
    theirs: list[Line]


def paired(lines: Mapping[str, list[Line]], artefact: str, against: str) -> Paired:
    """The lines of both artefacts on the rows that both have; EvaluationError where they had other rows to answer."""
    ours = {line["id"]: line for line in lines[artefact]}
    theirs = {line["id"]: line for line in lines[against]}
    common = [name for name in theirs if name in ours]
    changed = [name for name in common if ours[name].get("reference") != theirs[name].get("reference")]
    if not common or changed:
        raise EvaluationError(
            f"{artefact} and {against} did not answer the same rows",
            where=f"evaluation/{artefact}",
            why="They cannot be compared",
            fix="Delete both predictions.jsonl and run snakemake again",
        )
    return Paired(artefact, against, [ours[name] for name in common], [theirs[name] for name in common])


def compared(pairs: Sequence[Paired], metrics: Mapping[str, Metric], seed: int) -> list[dict[str, Any]]:
    """Every pair with its measures, p-values corrected for all tests made here, and what may be said of it."""
    tests = [
        (pair, metric)
        for pair in pairs
        for metric in metrics.values()
        if metric.better != "neither" and metric.scorable(pair.ours) and comparable(metric, pair)
    ]
    found = [difference(metric, pair, seed, comparisons=len(tests)) for pair, metric in tests]
    for entry, corrected in zip(found, significance.holm([entry["p"] for entry in found]), strict=True):
        entry["p_corrected"] = corrected
    results = []
    for pair in pairs:
        rows = len(set(rows_of(pair.ours)))
        mine = {metric.name: entry for (of, metric), entry in zip(tests, found, strict=True) if of is pair}
        for name, entry in mine.items():
            entry["verdict"] = verdict(metrics[name], entry)
            entry["sentence"] = sentences.of_measure(pair.artefact, pair.against, name, entry, rows, len(tests))
        results.append(
            {
                "artefact": pair.artefact,
                "against": pair.against,
                "rows": rows,
                "metrics": mine,
                "sentence": sentences.of_pair(pair.artefact, pair.against, mine, rows),
            }
        )
    return results


def comparable(metric: Metric, pair: Paired) -> bool:
    """Perplexity counts tokens, so only models that cut the answers into the same tokens may be compared by it."""
    return metric.name != "perplexity" or all(
        a["targets"] == b["targets"] for a, b in zip(pair.ours, pair.theirs, strict=True)
    )


def difference(metric: Metric, pair: Paired, seed: int, comparisons: int = 1) -> dict[str, Any]:
    """The difference of a measure, artefact less the other, on the same rows.

    {"value", "against", "difference", "low", "high", "test", "p", "detectable"}: low and high are its 95 % interval;
    detectable is the smallest true difference that so many rows, this varied, show with POWER when LEVEL is shared
    out among `comparisons`; None where no row differs at all, so that nothing is known of their variation.
    """
    lines, others = metric.scorable(pair.ours), metric.scorable(pair.theirs)
    rows = rows_of(lines)
    ours, theirs = (significance.clustered(metric.row_statistics(side), rows) for side in (lines, others))
    value, other = float(metric.aggregate(ours.sum(axis=0))), float(metric.aggregate(theirs.sum(axis=0)))
    both = significance.resamples(np.hstack([ours, theirs]), RESAMPLES, seed)
    width = ours.shape[1]
    differences: np.ndarray = metric.aggregate(both[:, :width]) - metric.aggregate(both[:, width:])
    low, high = significance.interval(differences, len(ours))
    exact = metric.is_proportion and len(ours) == len(lines)
    if exact:
        p = significance.mcnemar_p(ours[:, 0].tolist(), theirs[:, 0].tolist())
    else:
        p = significance.randomisation_p(ours, theirs, metric.aggregate, TRIALS, seed)
    least = significance.detectable(float(differences.std(ddof=1)), level=LEVEL, power=POWER, comparisons=comparisons)
    if exact:
        least = max(least, significance.fewest_discordant(LEVEL / comparisons) / len(ours))
    return {
        "value": value,
        "against": other,
        "difference": value - other,
        "low": low,
        "high": high,
        "test": "McNemar, exact" if exact else "paired approximate randomisation",
        "p": p,
        "detectable": least or None,
    }


def verdict(metric: Metric, entry: Mapping[str, Any]) -> str:
    """better, worse, or no difference shown: test and interval must agree.

    The test alone also notices another length of the answers, by which a measure of the whole corpus may differ where
    hardly a row does.
    """
    if entry["p_corrected"] >= LEVEL or entry["low"] <= 0 <= entry["high"]:
        return NO_DIFFERENCE
    return "better" if (entry["difference"] > 0) == (metric.better == "higher") else "worse"
