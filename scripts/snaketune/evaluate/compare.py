"""The variants against each other: differences with intervals, paired tests and what may be concluded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from snaketune.contracts.evaluate import Comparison, Prediction, Scores, VariantScores
from snaketune.evaluate import forgetting, paired_tests
from snaketune.evaluate.metrics import enabled_metrics
from snaketune.evaluate.score import RESAMPLES, attach_custom_values
from snaketune.evaluate.significance import CONFIDENCE
from snaketune.evaluate.step_config import ComparisonConfig
from snaketune.evaluate.thresholds import checked, recommended
from snaketune.files import StrPath, read_json, read_jsonl, replacing, write_json

COLUMNS = (
    "variant",
    "baseline",
    "metric",
    "rows",
    "clusters",
    "value",
    "baseline_value",
    "difference",
    "low",
    "high",
    "test",
    "p",
    "p_corrected",
    "outcome",
    "minimum_detectable_effect",
)


def run(
    *,
    predictions: Sequence[StrPath],
    scores: Sequence[StrPath],
    comparison: StrPath,
    table: StrPath,
    config: ComparisonConfig,
    general: Sequence[StrPath] = (),
) -> None:
    """Compare variants, each named by the folder that holds its files.

    general: the variants' answers to the general set; table: the pairs as CSV.
    """
    seed = config.seed
    metrics = enabled_metrics(config.settings)
    scores_of = {Path(path).parent.name: read_json(path, Scores) for path in scores}
    by_variant = {
        name: attach_custom_values(found, scores_of[name].custom_values)
        for name, found in _read_by_variant(predictions).items()
    }
    variants = {name: _without_custom_values(found) for name, found in scores_of.items()}
    pairs = [paired_tests.pair_predictions(by_variant, *names) for names in comparison_pairs(list(by_variant))]
    tested = paired_tests.compare_pairs(pairs, metrics, seed)
    limit = config.forgetting.limit
    found = Comparison(
        confidence=CONFIDENCE,
        alpha=paired_tests.ALPHA,
        power=paired_tests.POWER,
        resamples=RESAMPLES,
        permutations=paired_tests.PERMUTATIONS,
        correction="Holm",
        num_tests=sum(len(pair.metrics) for pair in tested),
        directions={name: metric.better for name, metric in metrics.items()},
        signatures={name: metric.signature for name, metric in metrics.items() if metric.signature},
        variants=variants,
        pairs=tested,
        forgetting=forgetting.compared(_read_by_variant(general), metrics, limit, seed),
        thresholds=checked(config.thresholds, variants, metrics),
    )
    write_json(comparison, found)
    write_table(table, found)


def comparison_pairs(variants: Sequence[str]) -> list[tuple[str, str]]:
    """Which variant is compared with which: each with the base, each GGUF with the adapter it comes from.

    The file to deploy is also compared with the prompted base and with the run before, where these were measured.
    """
    pairs = [(name, "base") for name in variants if name != "base" and "base" in variants]
    pairs += [(name, "adapter") for name in variants if name.startswith("gguf-") and "adapter" in variants]
    best = recommended(variants)
    return pairs + [(best, other) for other in ("prompted", "previous") if other in variants and other != best]


def write_table(path: StrPath, comparison: Comparison) -> None:
    """Write every metric of every pair as a line of CSV."""
    import pandas

    rows: Iterable[dict[str, object]] = (
        {"variant": pair.variant, "baseline": pair.baseline, "metric": name, "rows": pair.rows}
        | {"clusters": pair.clusters, "baseline_value": entry.baseline}
        | {key: value for key, value in msgspec.structs.asdict(entry).items() if key != "baseline"}
        for pair in comparison.pairs
        for name, entry in pair.metrics.items()
    )
    with replacing(path) as temporary:
        pandas.DataFrame(list(rows), columns=list(COLUMNS)).to_csv(temporary, index=False, lineterminator="\n")


def _without_custom_values(scores: Scores) -> VariantScores:
    return VariantScores(**{name: getattr(scores, name) for name in VariantScores.__struct_fields__})


def _read_by_variant(paths: Sequence[StrPath]) -> dict[str, list[Prediction]]:
    return {Path(path).parent.name: list(read_jsonl(path, Prediction)) for path in paths}
