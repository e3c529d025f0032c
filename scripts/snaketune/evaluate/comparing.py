"""The artefacts against each other: differences with intervals, paired tests and what may be concluded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snaketune.errors import EvaluationError
from snaketune.evaluate import sentences, statistics
from snaketune.evaluate.metrics import METRICS, Line, Metric, used
from snaketune.evaluate.scoring import RESAMPLES
from snaketune.files import StrPath, read_json, read_jsonl, write_json

LEVEL = 0.05
POWER = 0.8
TRIALS = 10_000


@dataclass(frozen=True)
class Paired:
    """Two artefacts' lines on the same rows."""

    artefact: str
    against: str
    ours: list[Line]
    theirs: list[Line]


def run(
    *, predictions: Sequence[StrPath], scores: Sequence[StrPath], comparison: StrPath, config: dict[str, Any]
) -> None:
    """Compare artefacts; each is named by the folder that holds its files. config: the seed."""
    lines = {Path(path).parent.name: list(read_jsonl(path)) for path in predictions}
    scored = {Path(path).parent.name: read_json(path) for path in scores}
    pairs = [paired(lines, *names) for names in wanted(list(lines))]
    write_json(
        comparison,
        {
            "level": LEVEL,
            "power": POWER,
            "resamples": RESAMPLES,
            "trials": TRIALS,
            "correction": "Holm",
            "artefacts": {name: scored[name] for name in lines},
            "better": {name: metric.better for name, metric in METRICS.items()},
            "pairs": compared(pairs, config["seed"]),
        },
    )


def wanted(artefacts: Sequence[str]) -> list[tuple[str, str]]:
    """Which artefact is compared with which: each with the base, and each GGUF with the adapter."""
    pairs = [(name, "base") for name in artefacts if name != "base" and "base" in artefacts]
    if "adapter" in artefacts:
        pairs += [(name, "adapter") for name in artefacts if name.startswith("gguf-")]
    return pairs


def paired(lines: dict[str, list[Line]], artefact: str, against: str) -> Paired:
    """The lines of both artefacts on the rows that both have."""
    ours = {line["id"]: line for line in lines[artefact]}
    theirs = {line["id"]: line for line in lines[against]}
    common = [name for name in theirs if name in ours]
    if not common:
        raise EvaluationError(
            f"{artefact} and {against} answered no row in common",
            where="evaluation",
            why="They cannot be compared",
            mend="Delete both predictions.jsonl and run snakemake again",
        )
    return Paired(artefact, against, [ours[name] for name in common], [theirs[name] for name in common])


def compared(pairs: Sequence[Paired], seed: int) -> list[dict[str, Any]]:
    """Every pair with its measures: difference, interval, p-values, detectable difference, verdict, sentence."""
    tested = [
        (pair, metric, comparable(metric, pair))
        for pair in pairs
        for metric in METRICS.values()
        if metric.better != "neither" and used(metric, pair.ours)
    ]
    made = [(pair, metric) for pair, metric, possible in tested if possible]
    found = [difference(metric, pair, seed, comparisons=len(made)) for pair, metric in made]
    for entry, corrected in zip(found, statistics.holm([entry["p"] for entry in found]), strict=True):
        entry["p_corrected"] = corrected
    results = []
    for pair in pairs:
        mine = {metric.name: entry for (of, metric), entry in zip(made, found, strict=True) if of is pair}
        rows = len(pair.ours)
        for name, entry in mine.items():
            entry["verdict"] = verdict(METRICS[name], entry)
            entry["sentence"] = sentences.of_measure(pair.artefact, pair.against, name, entry, rows, len(made))
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

    {"value", "against", "difference", "low", "high", "test", "p", "detectable"}: low and high are its 95 % interval,
    detectable the smallest true difference that these rows show in four of five cases after correction.
    """
    ours, theirs = metric.rows(used(metric, pair.ours)), metric.rows(used(metric, pair.theirs))
    value, other = float(metric.value(ours.sum(axis=0))), float(metric.value(theirs.sum(axis=0)))
    both = statistics.resamples(np.hstack([ours, theirs]), RESAMPLES, seed)
    width = ours.shape[1]
    differences: np.ndarray = metric.value(both[:, :width]) - metric.value(both[:, width:])
    low, high = statistics.interval(differences, len(ours))
    if metric.share:
        test, p = "McNemar", statistics.mcnemar_p(ours[:, 0].tolist(), theirs[:, 0].tolist())
    else:
        test, p = "paired randomisation", statistics.randomisation_p(ours, theirs, metric.value, TRIALS, seed)
    return {
        "value": value,
        "against": other,
        "difference": value - other,
        "low": low,
        "high": high,
        "test": test,
        "p": p,
        "detectable": statistics.detectable(
            float(differences.std(ddof=1)), level=LEVEL, power=POWER, comparisons=comparisons
        ),
    }


def verdict(metric: Metric, entry: dict[str, Any]) -> str:
    """better, worse, or no difference shown."""
    if entry["p_corrected"] >= LEVEL or entry["difference"] == 0:
        return "no difference shown"
    return "better" if (entry["difference"] > 0) == (metric.better == "higher") else "worse"
