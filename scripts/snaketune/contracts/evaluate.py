"""What the stage `evaluate` writes: predictions, scores, the comparison of all variants, and train/selection.json."""

from __future__ import annotations

from typing import Literal

import msgspec

from snaketune.files import Record


class SelectionMetric(Record, frozen=True, kw_only=True):
    """What select.metric names: its key, its label in a sentence, and which direction is better."""

    name: str
    label: str
    better: Literal["higher", "lower"]


class Candidate(Record, frozen=True, kw_only=True):
    """One trained experiment: its settings and the paths of its files; `scores` only where a metric decides."""

    experiment: str
    train: dict[str, object]
    model: dict[str, object]
    seed: int
    summary: str
    adapter: str
    adapter_config: str
    manifest: str
    scores: str | None = None


class SelectionConfig(Record, frozen=True, kw_only=True):
    """What select_experiment takes: candidates in the order of the configuration, and how to choose.

    tolerance: scores within this share of the best count as equal to it.
    """

    experiments: list[Candidate]
    tolerance: float
    metric: SelectionMetric


class ExperimentResult(Record, frozen=True, kw_only=True):
    """One experiment in selection.json. Losses are in nats per target token.

    total_nll: validation loss times validation tokens; best_step: as in the training's summary; score: what decided,
    total_nll or the value of the metric, None where it is not finite; settings: those in which the experiments differ.
    """

    experiment: str
    validation_loss: float | None
    base_validation_loss: float | None
    total_nll: float | None
    best_step: int
    steps: int
    trainable_parameters: int
    parameters: int
    score: float | None
    settings: dict[str, object]


class Selection(Record, frozen=True, kw_only=True):
    """train/selection.json, written by select_experiment: the chosen experiment, why, and all, the best first."""

    experiment: str
    metric: str
    reasons: list[str]
    experiments: list[ExperimentResult]


Direction = Literal["higher", "lower", "neither"]
Outcome = Literal["better", "worse", "no difference shown"]


class Prediction(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A line of evaluation/<variant>/{predictions,general,prompts}.jsonl, written by generate_answers.

    row: the id of the record, where one record has several predictions; cluster: the id of the first of
    the rows that this one depends on, absent for a row that stands alone. answer to cut are absent for a plain text,
    reference to bytes for a prompt without a reference. stopped: whether the model ended the answer itself; cut: tokens
    that the prompt was truncated by. logprob: log-likelihood of the reference in nats; num_target_tokens: how many
    tokens it sums over; bytes: length of the reference in UTF-8. custom_values: of custom metrics and of similarity, by
    name; they are in scores.json and never in this file.
    """

    id: str
    prompt: str
    row: str | None = None
    cluster: str | None = None
    category: str | None = None
    answer: str | None = None
    new_tokens: int | None = None
    stopped: bool | None = None
    cut: int | None = None
    reference: str | None = None
    logprob: float | None = None
    num_target_tokens: int | None = None
    bytes: int | None = None
    custom_values: dict[str, float] = msgspec.field(default_factory=dict)


class TestSplitUse(Record, frozen=True, kw_only=True):
    """evaluation/opened.json: the sealed test rows, and the adapter that they were opened for; holds no time."""

    __test__ = False  # no test of pytest's

    sealed: bool
    rows: int
    test_sha256: str
    adapter_sha256: str


class Opening(Record, frozen=True, kw_only=True):
    """results/.seals/<digest>.json: when sealed test rows were opened, by which run, for which adapter.

    opened_at: UTC, in ISO 8601; rows: their ids.
    """

    run: str
    opened_at: str
    test_sha256: str
    adapter_sha256: str
    rows: list[str]


class Score(Record, frozen=True, kw_only=True):
    """A metric's value with its 95 % interval; low and high are None where nothing is known of its variation."""

    value: float
    low: float | None
    high: float | None


class SetScores(Record, frozen=True, kw_only=True):
    """The scores of some rows; clusters: how many of the rows are independent of each other."""

    rows: int
    clusters: int
    metrics: dict[str, Score]


class VariantScores(SetScores, frozen=True, kw_only=True):
    """The scores of one model variant, of all rows and of each category; signatures: how each metric was made."""

    categories: dict[str, SetScores]
    signatures: dict[str, str] = msgspec.field(default_factory=dict)


class Scores(VariantScores, frozen=True, kw_only=True):
    """evaluation/<variant>/scores.json, written by score_answers; custom_values: by metric and prediction."""

    custom_values: dict[str, dict[str, float]] = msgspec.field(default_factory=dict)

    def without_custom_values(self) -> VariantScores:
        """What is kept of them in comparisons and reports."""
        return VariantScores(**{name: getattr(self, name) for name in VariantScores.__struct_fields__})


class MetricComparison(Record, frozen=True, kw_only=True):
    """One metric of two variants on the same rows.

    difference is `value` less `baseline`; low and high are its 95 % interval, None where nothing is known of its
    variation. interval and p hold for this test alone, p_corrected and outcome for all tests of the comparison.
    minimum_detectable_effect: the smallest true difference that these rows would have shown, after correction, with the
    probability `power` of the comparison; None where no row differs.
    """

    value: float
    baseline: float
    difference: float
    low: float | None
    high: float | None
    test: str
    p: float
    p_corrected: float
    outcome: Outcome
    minimum_detectable_effect: float | None


class PairComparison(Record, frozen=True, kw_only=True):
    """Two variants on the rows that both answered."""

    variant: str
    baseline: str
    rows: int
    clusters: int
    metrics: dict[str, MetricComparison]


class ForgettingPair(PairComparison, frozen=True, kw_only=True):
    """A variant against the base on the general set.

    ratio: its perplexity over the base's, 1 where nothing is forgotten (per byte where their tokens differ);
    within_limit: whether the ratio keeps the limit, None without a limit.
    """

    ratio: float
    within_limit: bool | None


class Forgetting(Record, frozen=True, kw_only=True):
    """The general set: `limit` is the largest ratio of perplexities that the configuration accepts."""

    rows: int
    limit: float | None
    variants: dict[str, VariantScores]
    pairs: list[ForgettingPair]


class ThresholdResult(Record, frozen=True, kw_only=True):
    """An acceptance limit of the configuration against the score of the file to deploy; met: None if unmeasured."""

    metric: str
    limit: float
    variant: str
    value: float | None
    met: bool | None


class Comparison(Record, frozen=True, kw_only=True):
    """evaluation/comparison.json, written by compare_scores: every variant and pair, with intervals and tests.

    alpha, power: level and power of the tests; num_tests: among how many the correction shares out alpha; directions:
    which way each metric is better.
    """

    confidence: float
    alpha: float
    power: float
    resamples: int
    permutations: int
    correction: str
    num_tests: int
    directions: dict[str, Direction]
    signatures: dict[str, str]
    variants: dict[str, VariantScores]
    pairs: list[PairComparison]
    forgetting: Forgetting | None
    thresholds: list[ThresholdResult]

    def pair(self, variant: str | None, baseline: str | None) -> PairComparison | None:
        """The comparison of two variants, if it was made."""
        return next((pair for pair in self.pairs if (pair.variant, pair.baseline) == (variant, baseline)), None)
