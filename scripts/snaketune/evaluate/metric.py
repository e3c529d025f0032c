"""What a metric is, how metrics are ordered, and what they share: a mean over rows, the words of texts.

Every metric is a formula over sums of per-row statistics: perplexity over summed log-probabilities and token counts,
BLEU over summed n-gram counts, a mean over a sum and a count. A resample of the rows is therefore scored from sums
alone, many resamples at once, and corpus-level metrics get intervals and tests like any other.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from snaketune.contracts.evaluate import Prediction

if TYPE_CHECKING:
    import numpy as np

Direction = Literal["higher", "lower", "neither"]
Unit = Literal["share", "points", "plain"]
Aspect = Literal["task", "match", "overlap", "likelihood", "style"]

# Scripts that are written without spaces: each of their characters counts as a word.
SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(f"[{SPACELESS}]|[^\\W_{SPACELESS}]+(?:[\\u0300-\\u036f]+[^\\W_{SPACELESS}]*)*")
WORDS_SIGNATURE = "words:nfkc,casefold,no-punctuation"


class Metric:
    """What the rest of snaketune asks about a metric; a subclass sets the attributes that differ.

    name: the key in files and in the configuration; label: the name in reports.
    better: which direction is an improvement; one with `neither` is reported, but not tested or used as a criterion.
    unit: `share` is 0 to 1, shown in percent; `points` is on a scale of 100; `plain` has no fixed scale.
    scale: the range of values in words, for the documentation; by default that of the unit.
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
    scale: str = ""
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

    def row_statistics(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """Statistics of each prediction [rows, k], such that their sums are enough for `aggregate`."""
        raise NotImplementedError

    def aggregate(self, sums: np.ndarray) -> np.ndarray:
        """The metric of sums of row statistics [..., k] as [...]; by default the ratio of the two."""
        import numpy as np

        return sums[..., 0] / np.maximum(sums[..., 1], 1e-300)

    def row_scores(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """The metric of each prediction by itself [rows]."""
        import numpy as np

        return self.aggregate(self.row_statistics(predictions)) if predictions else np.zeros(0)

    def scorable(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The predictions it can be taken of: a `text` row has no answer, a configured prompt no reference."""
        return [
            one for one in predictions if one.reference is not None and getattr(one, self.required_field) is not None
        ]


def ratios(above: Iterable[float], below: Iterable[float]) -> np.ndarray:
    """Statistics [rows, 2] of a metric that is the ratio of two sums."""
    import numpy as np

    return np.array(list(zip(above, below, strict=True)), float).reshape(-1, 2)


class RowMean(Metric):
    """A metric that is the mean of one value per row."""

    def row_value(self, prediction: Prediction) -> float:
        """The value of one prediction."""
        raise NotImplementedError

    def row_statistics(self, predictions: Sequence[Prediction]) -> np.ndarray:
        return ratios(map(self.row_value, predictions), [1.0] * len(predictions))


class CustomMetric(RowMean):
    """The mean of values that `score` puts into the predictions: of a configured function, or similarities."""

    description = "A metric of this run's own configuration."
    priority = 10
    aspect: Aspect = "task"

    def __init__(self, name: str, better: Direction = "higher", function: str = "") -> None:
        self.name, self.label, self.better, self.computed_as = name, name, better, function

    def row_value(self, prediction: Prediction) -> float:
        return prediction.custom_values[self.name]


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


def words(text: str) -> list[str]:
    """The words of a text without case, punctuation, or differences of Unicode compatibility."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the words of an answer, counted with repetition and without order; 1 where both are empty."""
    if not answer and not reference:
        return 1.0
    shared = (Counter(answer) & Counter(reference)).total()
    return 2 * shared / (len(answer) + len(reference))


def rouge_l(answer: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the longest common subsequence (Lin 2004, with precision and recall weighing the same)."""
    if not answer and not reference:
        return 1.0
    return 2 * common_subsequence(answer, reference) / (len(answer) + len(reference))


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö 2004): one integer operation a word of `other`."""
    positions: dict[str, int] = {}
    for i, word in enumerate(one):
        positions[word] = positions.get(word, 0) | 1 << i
    everything = (1 << len(one)) - 1
    row = everything
    for word in other:
        matched = row & positions.get(word, 0)
        row = ((row + matched) | (row - matched)) & everything
    return len(one) - row.bit_count()


def repetition(answer: Sequence[str], order: int = 4) -> float:
    """Share of an answer's runs of `order` words that had occurred before in it; 0 for a shorter answer."""
    runs = [tuple(answer[i : i + order]) for i in range(len(answer) - order + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
