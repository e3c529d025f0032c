"""What the choice between experiments takes, and train/selection.json."""

from __future__ import annotations

from typing import Literal

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

    total_nll: validation loss times validation tokens; best_step: 0 where no step was better than the base; score: what
    decided, total_nll or the value of the metric, None where it is not finite; settings: those in which the experiments
    differ.
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
