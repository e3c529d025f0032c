"""The measures, each as sums over rows and a formula over the sums.

Every measure of a set of rows is a function of sums of per-row statistics: perplexity of summed log-probabilities and
token counts, BLEU of summed n-gram counts, a mean of a sum and a count. So a resample of the rows is scored from sums
alone, many resamples at once, and corpus-level measures get intervals and tests like any other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sacrebleu
from sacrebleu.metrics.base import Metric as SacreMetric

from snaketune.evaluate import text_metrics

Line = dict[str, Any]
BLEU = sacrebleu.BLEU()
CHRF = sacrebleu.CHRF(word_order=2)
TER = sacrebleu.TER()
for _metric in (BLEU, CHRF, TER):
    _metric.num_refs = 1  # known to sacrebleu after its first score only, and part of the signature
OWN = "own"  # where a line keeps what the configuration's own measures say of it
LARGEST_LOG = 700.0  # exp of more is not a float


@dataclass(frozen=True)
class Metric:
    """A measure. rows: lines to statistics [rows, k]; value: sums [..., k] to [...].

    better: which way is an improvement; needs: what a line must have for it; share: whether each row is simply right
    or wrong.
    """

    name: str
    better: Literal["higher", "lower", "neither"]
    rows: Callable[[Sequence[Line]], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]
    signature: str = ""
    needs: str = "answer"
    share: bool = False


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / np.maximum(sums[..., 1], 1e-300)


def _perplexity(sums: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(_ratio(sums), LARGEST_LOG))


def _mean_of(score: Callable[[Line], float]) -> Callable[[Sequence[Line]], np.ndarray]:
    return lambda lines: np.array([(score(line), 1.0) for line in lines], float).reshape(-1, 2)


def _ratio_of(above: Callable[[Line], float], below: Callable[[Line], float]) -> Callable[[Sequence[Line]], np.ndarray]:
    return lambda lines: np.array([(above(line), below(line)) for line in lines], float).reshape(-1, 2)


def _sacre(metric: SacreMetric) -> Callable[[Sequence[Line]], np.ndarray]:
    def rows(lines: Sequence[Line]) -> np.ndarray:
        answers, references = [line["answer"] for line in lines], [line["reference"] for line in lines]
        return np.array(metric._extract_corpus_statistics(answers, [references]), float)

    return rows


def bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU (0 to 100) from sums [..., 10]: lengths of answers and references, then matches and totals of 1- to 4-grams.

    sacrebleu's formula with its default smoothing (`exp`), over many sums at once.
    """
    said, wanted, matches, totals = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    missed = np.cumsum((matches == 0) & (totals > 0), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(matches > 0, 100 * matches / totals, 100 / (np.exp2(missed) * totals))
        brevity = np.where(said < wanted, np.exp(1 - wanted / said), 1.0)
        score = brevity * np.exp(np.log(precisions).mean(axis=-1))
    return np.where(matches.any(axis=-1) & (totals > 0).all(axis=-1), score, 0.0)


def chrf(sums: np.ndarray) -> np.ndarray:
    """chrF (0 to 100) from sums [..., 3 x orders]: n-grams of the answers, of the references, and in both, per order.

    sacrebleu's formula with its default effective order and beta 2, over many sums at once.
    """
    said, wanted, shared = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    counted = (said > 0) & (wanted > 0)
    orders = np.maximum(counted.sum(axis=-1), 1)
    precision = np.where(counted, shared / np.maximum(said, 1), 0).sum(axis=-1) / orders
    recall = np.where(counted, shared / np.maximum(wanted, 1), 0).sum(axis=-1) / orders
    return 100 * 5 * precision * recall / np.maximum(4 * precision + recall, 1e-300)


def ter(sums: np.ndarray) -> np.ndarray:
    """TER (in per cent) from sums [..., 2]: edits and words of the references."""
    edits, length = sums[..., 0], sums[..., 1]
    return 100 * np.where(length > 0, edits / np.maximum(length, 1e-300), (edits > 0).astype(float))


def _raw_match(line: Line) -> float:
    return float(line["answer"].strip() == line["reference"].strip())


def _normalized_match(line: Line) -> float:
    return float(text_metrics.words(line["answer"]) == text_metrics.words(line["reference"]))


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "perplexity",
            "lower",
            _ratio_of(lambda line: -line["logprob"], lambda line: line["targets"]),
            _perplexity,
            needs="logprob",
        ),
        Metric(
            "bits_per_byte",
            "lower",
            _ratio_of(lambda line: -line["logprob"] / math.log(2), lambda line: line["bytes"]),
            _ratio,
            needs="logprob",
        ),
        Metric("exact_match", "higher", _mean_of(_raw_match), _ratio, "outer-spaces-removed", share=True),
        Metric(
            "exact_match_normalized", "higher", _mean_of(_normalized_match), _ratio, text_metrics.SIGNATURE, share=True
        ),
        Metric(
            "token_f1",
            "higher",
            _mean_of(
                lambda line: text_metrics.f1(text_metrics.words(line["answer"]), text_metrics.words(line["reference"]))
            ),
            _ratio,
            text_metrics.SIGNATURE,
        ),
        Metric(
            "rouge_l",
            "higher",
            _mean_of(
                lambda line: text_metrics.rouge_l(
                    text_metrics.words(line["answer"]), text_metrics.words(line["reference"])
                )
            ),
            _ratio,
            f"rougeL|f1|{text_metrics.SIGNATURE}",
        ),
        Metric("bleu", "higher", _sacre(BLEU), bleu, str(BLEU.get_signature())),
        Metric("chrf", "higher", _sacre(CHRF), chrf, str(CHRF.get_signature())),
        Metric("ter", "lower", _sacre(TER), ter, str(TER.get_signature())),
        Metric(
            "length_ratio",
            "neither",
            _ratio_of(lambda line: len(line["answer"]), lambda line: len(line["reference"])),
            _ratio,
            "characters",
        ),
        Metric("stopped", "higher", _mean_of(lambda line: float(line["stopped"])), _ratio, share=True),
        Metric(
            "repetition",
            "lower",
            _mean_of(lambda line: text_metrics.repetition(text_metrics.words(line["answer"]))),
            _ratio,
            f"4-grams|{text_metrics.SIGNATURE}",
        ),
    )
}


def measures(settings: dict[str, Any]) -> dict[str, Metric]:
    """The measures of a configuration, by name: ours, those it names itself, and similarity where it has a model.

    settings: `evaluate` (bleu_tokenizer, metrics, similarity). What its own functions and the embedding model say of
    each row is read from the line, where `scoring` has put it.
    """
    found = dict(METRICS)
    if settings["bleu_tokenizer"] != "13a":
        metric = sacrebleu.BLEU(tokenize=settings["bleu_tokenizer"])
        metric.num_refs = 1
        found["bleu"] = dataclasses.replace(found["bleu"], rows=_sacre(metric), signature=str(metric.get_signature()))
    for name, own in settings["metrics"].items():
        found[name] = _looked_up(name, own["better"], own["function"])
    if settings["similarity"]:
        found["similarity"] = _looked_up("similarity", "higher", f"cosine|{Path(settings['similarity']).name}")
    return found


def _looked_up(name: str, better: Literal["higher", "lower"], signature: str) -> Metric:
    return Metric(name, better, _mean_of(lambda line: line[OWN][name]), _ratio, signature)


def used(metric: Metric, lines: Sequence[Line]) -> list[Line]:
    """The lines that a measure can be taken of: a `text` row has no answer, a prompt of one's own no reference.

    BLEU counts runs of four words, so where no reference has four it would be 0 whatever is answered: it has no lines.
    """
    found = [line for line in lines if "reference" in line and metric.needs in line]
    if metric.name == "bleu" and not any(metric.rows([line])[0, -1] for line in map(_perfect, found)):
        return []
    return found


def _perfect(line: Line) -> Line:
    return {"answer": line["reference"], "reference": line["reference"]}
