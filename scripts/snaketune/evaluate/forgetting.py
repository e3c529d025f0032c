"""What the tuned variants can no longer do: their scores on the general set against the base's."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from snaketune.contracts.evaluate import Forgetting, ForgettingPair, MetricComparison, VariantScores
from snaketune.evaluate import paired_tests
from snaketune.evaluate.metrics import Line, Metric
from snaketune.evaluate.score import add_own, scored


def compared(
    lines: Mapping[str, list[Line]], metrics: Mapping[str, Metric], limit: float | None, seed: int
) -> Forgetting | None:
    """Compare every variant with the base on the general set; None without one or without the base's answers to it."""
    if "base" not in lines:
        return None
    kept = {name: metric for name, metric in metrics.items() if metric.in_forgetting}
    for found in lines.values():
        add_own(found, {})
    scores = {name: msgspec.convert(scored(found, kept, seed), VariantScores) for name, found in lines.items()}
    pairs = [paired_tests.pair_predictions(lines, name, "base") for name in lines if name != "base"]
    return Forgetting(
        rows=scores["base"].rows,
        limit=limit,
        variants=scores,
        pairs=[
            ForgettingPair(
                **msgspec.structs.asdict(pair), ratio=ratio, within_limit=None if limit is None else ratio <= limit
            )
            for pair in paired_tests.compare_pairs(pairs, kept, seed)
            for ratio in [_ratio(pair.metrics)]
        ],
    )


def _ratio(metrics: Mapping[str, MetricComparison]) -> float:
    """Perplexity over the base's; of other tokens, per byte: 2 to the power of the difference in bits."""
    if "perplexity" in metrics:
        return metrics["perplexity"].value / metrics["perplexity"].baseline
    return float(2 ** metrics["bits_per_byte"].difference)
