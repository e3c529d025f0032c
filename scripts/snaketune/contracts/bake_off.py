"""What compare_experiments writes: all experiments on the test rows, beside the base that was not trained."""

from __future__ import annotations

import msgspec

from snaketune.contracts.evaluate import MetricComparison, Score
from snaketune.contracts.train import TrainerRecord
from snaketune.files import Record


class Method(Record, frozen=True, kw_only=True):
    """One way to train, or a zero line: the base as it is or with a prompt, which has no experiments and no training.

    experiments: its trainings, which differ in their seeds alone; loss: of the test rows, nats per target token, or
    bits per byte where tokenizers differ; measure: of the answers; both over all seeds together, and by seed in losses
    and measures; validation_loss: mean of validation_losses, nats per target token by our count; adapter_bytes: of one
    adapter; trainer: of the field, as in summary.json.
    """

    name: str
    loss: Score
    losses: list[float]
    measure: Score | None
    measures: list[float]
    experiments: list[str] = msgspec.field(default_factory=list)
    method: str | None = None
    validation_loss: float | None = None
    validation_losses: list[float | None] = msgspec.field(default_factory=list)
    steps: int | None = None
    trainable_parameters: int | None = None
    adapter_bytes: int | None = None
    trainer: TrainerRecord | None = None

    @property
    def is_trained(self) -> bool:
        """Whether it is no zero line."""
        return bool(self.experiments)


class MethodPair(Record, frozen=True, kw_only=True):
    """Two methods on the same rows, by metric.

    luck: by metric, the half width of the 95 % interval of a difference that seeds alone make between two such means;
    empty where no method has two seeds.
    """

    method: str
    baseline: str
    metrics: dict[str, MetricComparison]
    luck: dict[str, float]


class SeedLuck(Record, frozen=True, kw_only=True):
    """How much the seed of the training does by itself.

    deviation: standard deviation between the seeds of one method, pooled over methods; degrees_of_freedom: of it;
    share: of the variance between trainings of different methods, how much is between seeds; None for one method.
    """

    deviation: float
    degrees_of_freedom: int
    share: float | None


class BakeOff(Record, frozen=True, kw_only=True):
    """evaluation/experiments.json: the zero lines, then the methods in the order of the configuration.

    measure: the metric of the answers that decides, None for rows of plain text; likelihood: the metric of the loss;
    num_tests: among how many the correction shares out alpha; luck: by metric, empty where no method has two seeds.
    """

    rows: int
    clusters: int
    measure: str | None
    likelihood: str
    correction: str
    alpha: float
    num_tests: int
    methods: list[Method]
    pairs: list[MethodPair]
    luck: dict[str, SeedLuck]
    conclusion: str
