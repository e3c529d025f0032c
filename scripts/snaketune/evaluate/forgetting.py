"""What the tuned artefacts can no longer do: their scores on the general set against the base's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snaketune.evaluate import paired_tests, sentences
from snaketune.evaluate.metrics import Line, Metric
from snaketune.evaluate.score import add_own, scored


def compared(
    lines: Mapping[str, list[Line]], metrics: Mapping[str, Metric], limit: float | None, seed: int
) -> dict[str, Any] | None:
    """{"rows", "limit", "artefacts": {name: scores}, "pairs": as in the comparison, each with "ratio" and "within"}.

    ratio: the artefact's perplexity over the base's, 1 where nothing is forgotten (per byte where their tokens
    differ); within: whether it keeps the limit. None without a general set or without the base's answers to it.
    """
    if "base" not in lines:
        return None
    kept = {name: metric for name, metric in metrics.items() if metric.in_forgetting}
    for found in lines.values():
        add_own(found, {})
    scores = {name: scored(found, kept, seed) for name, found in lines.items()}
    pairs = [paired_tests.paired(lines, name, "base") for name in lines if name != "base"]
    results = paired_tests.compared(pairs, kept, seed)
    for pair in results:
        pair["ratio"] = _ratio(pair["metrics"])
        pair["within"] = None if limit is None else pair["ratio"] <= limit
        pair["sentence"] = sentences.of_forgetting(pair["artefact"], pair, limit)
    return {"rows": scores["base"]["rows"], "limit": limit, "artefacts": scores, "pairs": results}


def _ratio(entries: Mapping[str, Mapping[str, Any]]) -> float:
    """Perplexity over the base's; of other tokens, per byte: 2 to the power of the difference in bits."""
    if "perplexity" in entries:
        return entries["perplexity"]["value"] / entries["perplexity"]["against"]
    return 2 ** entries["bits_per_byte"]["difference"]
