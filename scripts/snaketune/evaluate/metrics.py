"""The metric registry: one class per metric says what it is called, which way is better and how it is computed.

Every metric is a formula over sums of per-row statistics: perplexity over summed log-probabilities and token counts,
BLEU over summed n-gram counts, a mean over a sum and a count. A resample of the rows is therefore scored from sums
alone, many resamples at once, and corpus-level metrics get intervals and tests like any other.

To add a metric, write a class here under `@register`. Page, model card, selection, thresholds and documentation take
everything they need from it. The Snakefile imports this module to check names, so numpy and sacrebleu are imported
only where a metric is computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from snaketune.config.schema import did_you_mean
from snaketune.evaluate import text_metrics

if TYPE_CHECKING:
    import numpy as np

Line = dict[str, Any]
Direction = Literal["higher", "lower", "neither"]
Unit = Literal["share", "points", "plain"]
Aspect = Literal["task", "match", "overlap", "likelihood", "style"]
CUSTOM = "own"  # the key of a prediction under which `scoring` puts the values of custom metrics
MAX_EXPONENT = 700.0  # exp of more is not a float


class Metric:
    """What the rest of snaketune asks about a metric; a subclass sets the attributes that differ.

    name: the key in files and in the configuration; label: the name in reports.
    better: which direction is an improvement; one with `neither` is reported, but not tested or used as a criterion.
    unit: `share` is 0 to 1, shown in percent; `points` is on a scale of 100; `plain` has no fixed scale.
    upper_bound: the largest possible value (the smallest is 0), None where there is none.
    description: what it measures, for the report; caveat: what it does not show, for the documentation.
    priority: the metric with the smallest number leads headlines and tables.
    aspect: what it says about an answer; the report shows one metric of each aspect first. `style` is how a model
    answers, not whether it is right.
    required_field: what a prediction must have to be scored; is_proportion: whether each row is simply right or wrong;
    in_forgetting: whether the general set is measured with it; computed_as: settings that change its values.
    """

    name: str
    label: str
    description: str
    better: Direction = "higher"
    unit: Unit = "plain"
    upper_bound: float | None = None
    caveat: str = ""
    priority: int = 500
    aspect: Aspect = "overlap"
    required_field: str = "answer"
    is_proportion: bool = False
    in_forgetting: bool = False
    computed_as: str = ""

    @property
    def signature(self) -> str:
        """How exactly it is computed, for whoever compares scores across papers or versions; may be empty."""
        return self.computed_as

    @property
    def in_sentence(self) -> str:
        """The label within a sentence: in lower case, unless it is an acronym, a name or a key of the configuration."""
        first = self.label.split()[0][1:]
        return (
            self.label if self.label == self.name or first != first.lower() else self.label[0].lower() + self.label[1:]
        )

    def row_statistics(self, predictions: Sequence[Line]) -> np.ndarray:
        """Statistics of each prediction [rows, k], such that their sums are enough for `aggregate`."""
        raise NotImplementedError

    def aggregate(self, sums: np.ndarray) -> np.ndarray:
        """The metric of sums of row statistics [..., k] as [...]; by default the ratio of the two."""
        import numpy as np

        return sums[..., 0] / np.maximum(sums[..., 1], 1e-300)

    def row_scores(self, predictions: Sequence[Line]) -> np.ndarray:
        """The metric of each prediction by itself [rows]."""
        import numpy as np

        return self.aggregate(self.row_statistics(predictions)) if predictions else np.zeros(0)

    def scorable(self, predictions: Sequence[Line]) -> list[Line]:
        """The predictions it can be taken of: a `text` row has no answer, a configured prompt no reference."""
        return [line for line in predictions if "reference" in line and self.required_field in line]


M = TypeVar("M", bound=type[Metric])
METRICS: dict[str, Metric] = {}


def register(metric: M) -> M:
    """Add a metric class to the registry (a class decorator)."""
    if metric.name in METRICS:
        raise ValueError(f"a metric named {metric.name} is registered already")
    METRICS[metric.name] = metric()
    return metric


def _ratios(above: Iterable[float], below: Iterable[float]) -> np.ndarray:
    import numpy as np

    return np.array(list(zip(above, below, strict=True)), float).reshape(-1, 2)


class RowMean(Metric):
    """A metric that is the mean of one value per row."""

    def row_value(self, prediction: Line) -> float:
        """The value of one prediction."""
        raise NotImplementedError

    def row_statistics(self, predictions: Sequence[Line]) -> np.ndarray:
        return _ratios(map(self.row_value, predictions), [1.0] * len(predictions))


@register
class Perplexity(Metric):
    name = "perplexity"
    label = "Answer perplexity"
    description = (
        "How surprised the model is by the reference answers, per token; 1 would be certainty. Only models with the "
        "same tokenizer may be compared by it."
    )
    caveat = "a tuned model is surer of the wording, which is not yet a better answer"
    better = "lower"
    priority = 80
    aspect = "likelihood"
    required_field = "logprob"
    in_forgetting = True

    def row_statistics(self, predictions: Sequence[Line]) -> np.ndarray:
        return _ratios((-line["logprob"] for line in predictions), (line["targets"] for line in predictions))

    def aggregate(self, sums: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.exp(np.minimum(super().aggregate(sums), MAX_EXPONENT))


@register
class BitsPerByte(Metric):
    name = "bits_per_byte"
    label = "Bits per byte"
    description = "The same surprise per byte of text, which may be compared between tokenizers."
    better = "lower"
    priority = 90
    aspect = "likelihood"
    required_field = "logprob"
    in_forgetting = True

    def row_statistics(self, predictions: Sequence[Line]) -> np.ndarray:
        return _ratios(
            (-line["logprob"] / math.log(2) for line in predictions), (line["bytes"] for line in predictions)
        )


@register
class ExactMatch(RowMean):
    name = "exact_match"
    label = "Exact match"
    description = "Answers that equal the reference answer character by character, outer spaces aside."
    caveat = "right answers in other words count as wrong"
    unit = "share"
    upper_bound = 1.0
    priority = 20
    aspect = "match"
    is_proportion = True
    computed_as = "outer-spaces-removed"

    def row_value(self, prediction: Line) -> float:
        return float(prediction["answer"].strip() == prediction["reference"].strip())


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
    computed_as = text_metrics.SIGNATURE

    def row_value(self, prediction: Line) -> float:
        return float(text_metrics.words(prediction["answer"]) == text_metrics.words(prediction["reference"]))


@register
class TokenF1(RowMean):
    name = "token_f1"
    label = "Token F1"
    description = "Words shared with the reference, whatever their order."
    caveat = "a denial shares nearly all its words with what it denies"
    unit = "share"
    upper_bound = 1.0
    priority = 60
    in_forgetting = True
    computed_as = text_metrics.SIGNATURE

    def row_value(self, prediction: Line) -> float:
        return text_metrics.f1(text_metrics.words(prediction["answer"]), text_metrics.words(prediction["reference"]))


@register
class RougeL(RowMean):
    name = "rouge_l"
    label = "ROUGE-L"
    description = "The longest sequence of words shared with the reference, gaps allowed (F1)."
    unit = "share"
    upper_bound = 1.0
    priority = 70
    computed_as = f"rougeL|f1|{text_metrics.SIGNATURE}"

    def row_value(self, prediction: Line) -> float:
        return text_metrics.rouge_l(
            text_metrics.words(prediction["answer"]), text_metrics.words(prediction["reference"])
        )


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

    def row_statistics(self, predictions: Sequence[Line]) -> np.ndarray:
        import numpy as np

        answers, references = [line["answer"] for line in predictions], [line["reference"] for line in predictions]
        return np.array(self._scorer._extract_corpus_statistics(answers, [references]), float)


@register
class Bleu(SacrebleuMetric):
    name = "bleu"
    label = "BLEU"
    description = (
        "Runs of up to four words shared with the reference, over all answers together. It asks for the same words, "
        "so a right answer in other words scores low, and answers of fewer than four words always score 0."
    )
    caveat = "other right words score nothing; left out where no reference has four words"
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

    def scorable(self, predictions: Sequence[Line]) -> list[Line]:
        """As for any metric, but nothing where no reference has four words: BLEU would be 0 whatever is answered."""
        found = super().scorable(predictions)
        perfect = [{"answer": line["reference"], "reference": line["reference"]} for line in found]
        return found if any(self.row_statistics([line])[0, -1] for line in perfect) else []


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
    caveat = "neither direction is better in itself, so it is not tested"
    better = "neither"
    priority = 220
    aspect = "style"
    computed_as = "characters"

    def row_statistics(self, predictions: Sequence[Line]) -> np.ndarray:
        return _ratios((len(line["answer"]) for line in predictions), (len(line["reference"]) for line in predictions))


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

    def row_value(self, prediction: Line) -> float:
        return float(prediction["stopped"])


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
    computed_as = f"4-grams|{text_metrics.SIGNATURE}"

    def row_value(self, prediction: Line) -> float:
        return text_metrics.repetition(text_metrics.words(prediction["answer"]))


class CustomMetric(RowMean):
    """The mean of values that `scoring` puts into the predictions: of a configured function, or similarities."""

    description = "A metric of this run's own configuration."
    priority = 10
    aspect: Aspect = "task"

    def __init__(self, name: str, better: Direction = "higher", function: str = "") -> None:
        self.name, self.label, self.better, self.computed_as = name, name, better, function

    def row_value(self, prediction: Line) -> float:
        return float(prediction[CUSTOM][self.name])


class Similarity(CustomMetric):
    """Cosine of the embeddings of answer and reference, from the embedding model of the configuration."""

    description = "Closeness in meaning to the reference, as an embedding model sees it."
    caveat = "as good as that model; contradictions can lie near each other"
    priority = 100
    aspect = "overlap"

    def __init__(self, model: str) -> None:
        super().__init__("similarity", function=f"cosine|{Path(model).name}")
        self.label = "Semantic similarity"


def enabled_metrics(settings: Mapping[str, Any]) -> dict[str, Metric]:
    """The metrics of a configuration, by name: the registry, its custom metrics, and similarity where it has a model.

    settings: `evaluate` (bleu_tokenizer, metrics, similarity). What custom functions and the embedding model say of
    each row is read from the predictions, where `scoring` has put it.
    """
    found = dict(METRICS)
    if settings["bleu_tokenizer"] != "13a":
        found["bleu"] = Bleu(settings["bleu_tokenizer"])
    for name, own in settings["metrics"].items():
        found[name] = CustomMetric(name, own["better"], own["function"])
    if settings["similarity"]:
        found["similarity"] = Similarity(settings["similarity"])
    return found


def by_priority(names: Iterable[str], metrics: Mapping[str, Metric]) -> list[str]:
    """Names of metrics in the order in which a reader should meet them."""
    return sorted(names, key=lambda name: find(name, metrics).priority)


def one_per_aspect(names: Iterable[str], metrics: Mapping[str, Metric]) -> list[str]:
    """The leading metric of each aspect but style, in order of priority."""
    leading: dict[Aspect, str] = {}
    for name in by_priority(names, metrics):
        leading.setdefault(find(name, metrics).aspect, name)
    return [name for aspect, name in leading.items() if aspect != "style"]


def find(name: str, metrics: Mapping[str, Metric]) -> Metric:
    """The metric of that name; one that is not known, of an older run for instance, is shown under its name."""
    return metrics.get(name) or CustomMetric(name, "neither")


def did_you_mean_metric(name: str, metrics: Mapping[str, Metric]) -> str:
    """`; did you mean "chrf"?` for a name that is misspelled or that is written as reports do (`chrF++`)."""
    written = {
        spelling.casefold(): metric.name for metric in metrics.values() for spelling in (metric.name, metric.label)
    }
    found = written.get(name.casefold())
    return f'; did you mean "{found}"?' if found else did_you_mean(name.casefold().replace(" ", "_"), metrics)
