"""The metrics that every run has: one class per metric, all of them in the registry `METRICS`.

To add a metric, write a class here under `@register`. Page, model card, selection, thresholds and documentation take
everything they need from it. The Snakefile imports this module to check names, so numpy and sacrebleu are imported
only where a metric is computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from snaketune.contracts.evaluate import Prediction
from snaketune.evaluate.metric import WORDS_SIGNATURE, Metric, RowMean, f1, ratios, repetition, rouge_l, words

if TYPE_CHECKING:
    import numpy as np

MAX_EXPONENT = 700.0  # exp of more is not a float

M = TypeVar("M", bound=type[Metric])
METRICS: dict[str, Metric] = {}


def register(metric: M) -> M:
    """Add a metric class to the registry (a class decorator)."""
    if metric.name in METRICS:
        raise ValueError(f"a metric named {metric.name} is registered already")
    METRICS[metric.name] = metric()
    return metric


def _surprise(prediction: Prediction) -> float:
    assert prediction.logprob is not None  # required_field
    return -prediction.logprob


def _texts(prediction: Prediction) -> tuple[str, str]:
    """Answer and reference."""
    assert prediction.answer is not None  # required_field
    assert prediction.reference is not None  # scorable
    return prediction.answer, prediction.reference


def _words(prediction: Prediction) -> tuple[list[str], list[str]]:
    answer, reference = _texts(prediction)
    return words(answer), words(reference)


@register
class Perplexity(Metric):
    name = "perplexity"
    label = "Answer perplexity"
    description = (
        "How surprised the model is by the reference answers, per token; 1 would be certainty. Only models with the "
        "same tokenizer may be compared by it."
    )
    caveat = "It says nothing about what the model would answer. The end-of-turn token counts."
    scale = "from 1"
    better = "lower"
    priority = 80
    aspect = "likelihood"
    required_field = "logprob"
    in_forgetting = True

    def row_statistics(self, predictions: Sequence[Prediction]) -> np.ndarray:
        return ratios(map(_surprise, predictions), (one.num_target_tokens or 0 for one in predictions))

    def aggregate(self, sums: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.exp(np.minimum(super().aggregate(sums), MAX_EXPONENT))


@register
class BitsPerByte(Metric):
    name = "bits_per_byte"
    label = "Bits per byte"
    description = "The same surprise per byte of text, which may be compared between tokenizers."
    caveat = "The end-of-turn token counts as surprise and has no bytes."
    scale = "from 0"
    better = "lower"
    priority = 90
    aspect = "likelihood"
    required_field = "logprob"
    in_forgetting = True

    def row_statistics(self, predictions: Sequence[Prediction]) -> np.ndarray:
        bits = (_surprise(one) / math.log(2) for one in predictions)
        return ratios(bits, (one.bytes or 0 for one in predictions))


@register
class ExactMatch(RowMean):
    name = "exact_match"
    label = "Exact match"
    description = "Answers that equal the reference answer character by character, outer spaces aside."
    caveat = "One word too many makes an answer wrong."
    unit = "share"
    upper_bound = 1.0
    priority = 20
    aspect = "match"
    is_proportion = True
    computed_as = "outer-spaces-removed"

    def row_value(self, prediction: Prediction) -> float:
        answer, reference = _texts(prediction)
        return float(answer.strip() == reference.strip())


@register
class NormalizedExactMatch(RowMean):
    name = "exact_match_normalized"
    label = "Normalized exact match"
    description = "Answers that equal the reference but for case, punctuation, spaces and Unicode variants."
    unit = "share"
    upper_bound = 1.0
    priority = 30
    aspect = "match"
    is_proportion = True
    computed_as = WORDS_SIGNATURE

    def row_value(self, prediction: Prediction) -> float:
        answer, reference = _words(prediction)
        return float(answer == reference)


@register
class TokenF1(RowMean):
    name = "token_f1"
    label = "Token F1"
    description = (
        "Words shared with the reference, whatever their order. In scripts without spaces each character is a word."
    )
    caveat = "A denial shares nearly all its words with what it denies."
    unit = "share"
    upper_bound = 1.0
    priority = 60
    in_forgetting = True
    computed_as = WORDS_SIGNATURE

    def row_value(self, prediction: Prediction) -> float:
        return f1(*_words(prediction))


@register
class RougeL(RowMean):
    name = "rouge_l"
    label = "ROUGE-L"
    description = "The longest sequence of words shared with the reference, gaps allowed (F1)."
    unit = "share"
    upper_bound = 1.0
    priority = 70
    computed_as = f"rougeL|f1|{WORDS_SIGNATURE}"

    def row_value(self, prediction: Prediction) -> float:
        return rouge_l(*_words(prediction))


class SacrebleuMetric(Metric):
    """A corpus metric with per-row statistics from sacrebleu; `aggregate` is its formula over many sums at once."""

    unit = "points"

    def scorer(self) -> Any:
        """The sacrebleu metric with its settings."""
        raise NotImplementedError

    @functools.cached_property
    def _scorer(self) -> Any:
        scorer = self.scorer()
        scorer.num_refs = 1  # part of the signature, and otherwise unknown before the first score
        return scorer

    @property
    def signature(self) -> str:
        return str(self._scorer.get_signature())

    def row_statistics(self, predictions: Sequence[Prediction]) -> np.ndarray:
        import numpy as np

        answers, references = zip(*map(_texts, predictions), strict=True)
        return np.array(self._scorer._extract_corpus_statistics(list(answers), [list(references)]), float)


@register
class Bleu(SacrebleuMetric):
    name = "bleu"
    label = "BLEU"
    description = (
        "Runs of up to four words shared with the reference, over all answers together. It asks for the same words, "
        "so a right answer in other words scores low, and answers of fewer than four words always score 0."
    )
    caveat = "Other right words score nothing. It is left out where no reference has four words."
    upper_bound = 100.0
    priority = 50

    def __init__(self, tokenizer: str = "13a") -> None:
        self.tokenizer = tokenizer

    def scorer(self) -> Any:
        import sacrebleu

        return sacrebleu.BLEU() if self.tokenizer == "13a" else sacrebleu.BLEU(tokenize=self.tokenizer)

    def aggregate(self, sums: np.ndarray) -> np.ndarray:
        """BLEU from sums [..., 10]: lengths of answers and references, then matches and totals of 1- to 4-grams.

        sacrebleu's formula with its default smoothing (`exp`).
        """
        import numpy as np

        answer, reference, matches, totals = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
        missed = np.cumsum((matches == 0) & (totals > 0), axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            precisions = np.where(matches > 0, 100 * matches / totals, 100 / (np.exp2(missed) * totals))
            brevity = np.where(answer < reference, np.exp(1 - reference / answer), 1.0)
            score = brevity * np.exp(np.log(precisions).mean(axis=-1))
        return np.where(matches.any(axis=-1) & (totals > 0).all(axis=-1), score, 0.0)

    def scorable(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """As for any metric, but nothing where no reference has four words: BLEU would be 0 whatever is answered."""
        found = super().scorable(predictions)
        perfect = (msgspec.structs.replace(one, answer=one.reference) for one in found)
        return found if any(self.row_statistics([one])[0, -1] for one in perfect) else []


@register
class Chrf(SacrebleuMetric):
    name = "chrf"
    label = "chrF++"
    description = "Runs of characters and words shared with the reference; kinder to inflected languages than BLEU."
    upper_bound = 100.0
    priority = 40
    in_forgetting = True

    def scorer(self) -> Any:
        import sacrebleu

        return sacrebleu.CHRF(word_order=2)

    def aggregate(self, sums: np.ndarray) -> np.ndarray:
        """chrF from sums [..., 3 x orders]: n-grams of the answers, of the references, and in both, per order.

        sacrebleu's formula with its default effective order and beta 2.
        """
        import numpy as np

        answer, reference, shared = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
        counted = (answer > 0) & (reference > 0)
        orders = np.maximum(counted.sum(axis=-1), 1)
        precision = np.where(counted, shared / np.maximum(answer, 1), 0).sum(axis=-1) / orders
        recall = np.where(counted, shared / np.maximum(reference, 1), 0).sum(axis=-1) / orders
        return 100 * 5 * precision * recall / np.maximum(4 * precision + recall, 1e-300)


@register
class Ter(SacrebleuMetric):
    name = "ter"
    label = "TER"
    description = "Edits needed to turn the answers into the references, per word."
    scale = "from 0, in percent"
    better = "lower"
    priority = 110

    def scorer(self) -> Any:
        import sacrebleu

        return sacrebleu.TER()

    def aggregate(self, sums: np.ndarray) -> np.ndarray:
        """TER in percent from sums [..., 2]: edits and words of the references."""
        import numpy as np

        edits, length = sums[..., 0], sums[..., 1]
        return 100 * np.where(length > 0, edits / np.maximum(length, 1e-300), (edits > 0).astype(float))


@register
class LengthRatio(Metric):
    name = "length_ratio"
    label = "Length ratio"
    description = "Length of the answers over that of the references, in characters; 1 is as long."
    caveat = "Neither direction is better in itself, so it is not tested."
    scale = "from 0"
    better = "neither"
    priority = 220
    aspect = "style"
    computed_as = "characters"

    def row_statistics(self, predictions: Sequence[Prediction]) -> np.ndarray:
        texts = [_texts(one) for one in predictions]
        return ratios((len(answer) for answer, _ in texts), (len(reference) for _, reference in texts))


@register
class Stopped(RowMean):
    name = "stopped"
    label = "Stopped by itself"
    description = "Answers that the model ended itself; the others were cut at the length limit."
    unit = "share"
    upper_bound = 1.0
    priority = 200
    aspect = "style"
    is_proportion = True

    def row_value(self, prediction: Prediction) -> float:
        return float(prediction.stopped or False)


@register
class Repetition(RowMean):
    name = "repetition"
    label = "Repetition"
    description = "Runs of four words that had occurred before in the same answer."
    better = "lower"
    unit = "share"
    upper_bound = 1.0
    priority = 210
    aspect = "style"
    computed_as = f"4-grams|{WORDS_SIGNATURE}"

    def row_value(self, prediction: Prediction) -> float:
        return repetition(_words(prediction)[0])
