"""The artefacts against each other: differences with intervals, paired tests and what may be concluded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snaketune.evaluate import forgetting, paired_tests, sentences
from snaketune.evaluate.metrics import Line, enabled_metrics
from snaketune.evaluate.score import RESAMPLES, add_own
from snaketune.evaluate.thresholds import checked, recommended
from snaketune.files import StrPath, read_json, read_jsonl, write_json


def run(
    *,
    predictions: Sequence[StrPath],
    scores: Sequence[StrPath],
    comparison: StrPath,
    config: dict[str, Any],
    general: Sequence[StrPath] = (),
) -> None:
    """Compare artefacts, each named by the folder that holds its files; config: what `settings.comparing` gives.

    general: the artefacts' answers to the general set.
    """
    settings, seed = config["evaluate"], config["seed"]
    metrics = enabled_metrics(settings)
    scores_of = {Path(path).parent.name: read_json(path) for path in scores}
    lines = {Path(path).parent.name: list(read_jsonl(path)) for path in predictions}
    for name, found in lines.items():
        add_own(found, scores_of[name].pop("own"))
    pairs = [paired_tests.paired(lines, *names) for names in wanted(list(lines))]
    found = paired_tests.compared(pairs, metrics, seed)
    kept = forgetting.compared(_by_folder(general), metrics, settings["forgetting"]["limit"], seed)
    write_json(
        comparison,
        {
            "confidence": 0.95,
            "level": paired_tests.LEVEL,
            "power": paired_tests.POWER,
            "resamples": RESAMPLES,
            "trials": paired_tests.TRIALS,
            "correction": "Holm",
            "comparisons": sum(len(pair["metrics"]) for pair in found),
            "better": {name: metric.better for name, metric in metrics.items()},
            "signatures": {name: metric.signature for name, metric in metrics.items() if metric.signature},
            "artefacts": scores_of,
            "pairs": found,
            "conclusion": sentences.conclusion(found),
            "forgetting": kept,
            "targets": checked(settings["thresholds"], scores_of, metrics),
        },
    )


def wanted(artefacts: Sequence[str]) -> list[tuple[str, str]]:
    """Which artefact is compared with which: each with the base, each GGUF with the adapter it comes from.

    The recommended one is also compared with the prompted base and with the run before, where these were measured.
    """
    pairs = [(name, "base") for name in artefacts if name != "base" and "base" in artefacts]
    pairs += [(name, "adapter") for name in artefacts if name.startswith("gguf-") and "adapter" in artefacts]
    best = recommended(artefacts)
    return pairs + [(best, other) for other in ("prompted", "previous") if other in artefacts and other != best]


def _by_folder(paths: Sequence[StrPath]) -> Mapping[str, list[Line]]:
    return {Path(path).parent.name: list(read_jsonl(path)) for path in paths}
