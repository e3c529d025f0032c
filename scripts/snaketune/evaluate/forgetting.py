"""What the tuned variants can no longer do: their scores on the general set against the base's."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from snaketune.contracts.evaluate import Forgetting, ForgettingPair, MetricComparison, Prediction
from snaketune.evaluate import paired_tests
from snaketune.evaluate.metrics import Metric
from snaketune.evaluate.score import score_predictions


def compared(
    predictions: Mapping[str, list[Prediction]], metrics: Mapping[str, Metric], limit: float | None, seed: int
) -> Forgetting | None:
    """Compare every variant with the base on the general set; None without one or without the base's answers to it."""
    if "base" not in predictions:
        return None
    kept = {name: metric for name, metric in metrics.items() if metric.in_forgetting}
    scores = {name: score_predictions(found, kept, seed) for name, found in predictions.items()}
    pairs = [paired_tests.pair_predictions(predictions, name, "base") for name in predictions if name != "base"]
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
