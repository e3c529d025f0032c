"""What is known before hours are spent: plan.json, pilot/dry_run.json and pilot/decision.json."""

from __future__ import annotations

from typing import Literal

import msgspec

from snaketune.files import Record
from snaketune.runtime.engine import EngineChoice
from snaketune.runtime.machine import Machine

Result = Literal["pass", "fail", "unknown"]


class DryRunStep(Record, frozen=True, kw_only=True):
    """One step of the dry run, and what it showed."""

    step: str
    message: str


class DryRun(Record, frozen=True, kw_only=True):
    """pilot/dry_run.json: the whole chain on so many rows."""

    rows: int
    steps: list[DryRunStep]


class GGUFSpeed(Record, frozen=True, kw_only=True):
    """What llama.cpp takes with a file of one type: seconds for each token, of one weight or of a whole model.

    read: of a row that is read; alone: new, of one answer; together: new, of a full batch of answers.
    """

    read: float
    alone: float
    together: float


class DryRunTiming(Record, frozen=True, kw_only=True):
    """pilot/dry_run/timing.json: what packaging and answering took on next to nothing.

    converter_seconds: llama.cpp's converter; merged_per_second: weights that are read, merged and written in a second;
    quantized_per_second: weights that one thread quantizes, by GGUF type, and calibrated_per_second with an importance
    matrix; gguf: seconds for each weight, by type, of a model large enough to measure it for.
    """

    converter_seconds: float
    merged_per_second: float
    quantized_per_second: dict[str, float]
    calibrated_per_second: dict[str, float]
    gguf: dict[str, GGUFSpeed]


class Criterion(Record, frozen=True):
    """One line of the decision.

    value and threshold are None where nothing can be compared; result is `unknown` where there is too little to tell;
    message is a sentence.
    """

    name: str
    value: float | None
    threshold: float | None
    result: Result
    message: str


class PilotedExperiment(Record, frozen=True, kw_only=True):
    """Which experiment the pilot trained, and how many there are."""

    experiment: str
    of: int


class AnsweringSpeed(Record, frozen=True, kw_only=True):
    """What answering took in the pilot's sample, in seconds.

    start: before the first row; base, tuned: each new token of as many answers as are made together, by base and by
    tuned model; tuned_alone: each new token of one answer; scored: each token that is read; gguf: the same of the
    GGUF files that answer, by type, where the dry run measured it. row_tokens, base_tokens and reference_tokens: mean
    lengths of a row, of the base's answer and of a reference; general: of a row of the general set, as a share of a
    test row's.
    """

    start: float
    base: float
    tuned: float
    tuned_alone: float
    scored: float
    gguf: dict[str, GGUFSpeed]
    row_tokens: float
    base_tokens: float
    reference_tokens: float
    general: float


class PilotForecast(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What the full run would cost.

    hours: with a range; seconds: by stage (train, other_experiments, package, fidelity, evaluate); at_once: trainings
    or evaluations side by side; answering: by which the evaluation takes no more rows than fit into its time;
    validation_loss: nats a target token, absent after a pilot that is too short for it.
    """

    hours: float
    hours_low: float
    hours_high: float
    seconds: dict[str, float]
    at_once: int
    memory_bytes: int
    pilot_memory_bytes: int
    disk_bytes: int
    answering: AnsweringSpeed | None = None
    validation_loss: float | None = None
    validation_loss_low: float | None = None
    validation_loss_high: float | None = None


class LearningCurvePoint(Record, frozen=True, kw_only=True):
    """The best validation loss of a training on so many rows."""

    rows: int
    validation_loss: float


class LearningCurve(Record, frozen=True, kw_only=True):
    """Whether more rows would help. per_doubling: fall of the loss, nats a token, between the last two points."""

    points: list[LearningCurvePoint]
    per_doubling: float | None
    more_data_helps: Literal["likely", "unlikely", "unclear"]
    message: str


class SampledAnswer(Record, frozen=True, kw_only=True):
    """A validation row with its reference and what base and pilot answer."""

    prompt: str
    reference: str
    base: str
    pilot: str


class PilotDecision(Record, frozen=True, kw_only=True):
    """pilot/decision.json, always written, also for a no-go. reasons: of a no-go; overridden: by pilot.on_no_go.

    rows: validation rows whose log-likelihoods the criteria compare, of rows_allowed: fewer where they decided about a
    large model; confidence: of the intervals, higher where rows may be looked at twice.
    """

    decision: Literal["go", "no-go"]
    piloted: PilotedExperiment
    reasons: list[str]
    likely_cause: str | None
    criteria: list[Criterion]
    rows: int
    rows_allowed: int
    forecast: PilotForecast
    learning_curve: LearningCurve | None
    overridden: bool
    sample: list[SampledAnswer]
    confidence: float = 0.95


class BatchShape(Record, frozen=True):
    """A micro-batch: `rows` x `length` positions with padding, of which `num_target_tokens` carry a loss."""

    rows: int
    length: int
    num_target_tokens: int

    @property
    def positions(self) -> int:
        return self.rows * self.length


class MemoryForecast(Record, frozen=True, kw_only=True):
    """Peak bytes of a training by part; parts that are gone at the moment of the peak are 0."""

    weights: int
    adapter: int
    optimizer: int
    gradients: int
    activations: int
    attention: int
    logits: int
    update: int
    total: int


class DiskForecast(Record, frozen=True, kw_only=True):
    """Bytes that each stage writes, and their sum."""

    base: int
    train: int
    fused: int
    f16: int
    gguf: int
    mlx: int
    total: int


class PlannedExperiment(Record, frozen=True, kw_only=True):
    """What one experiment will do and hold.

    num_target_tokens and input_tokens: over the whole training; dtype_bytes: of a weight that is not quantized;
    usable_memory: bytes that the training may take; warnings: sentences for a person.
    """

    steps: int
    rows_per_step: int
    rows_seen: int
    times_each_row_is_seen: float
    num_target_tokens: int
    input_tokens: int
    validations: int
    parameters: int
    trainable_parameters: int
    largest_batch: BatchShape
    dtype_bytes: int
    memory: MemoryForecast
    usable_memory: int
    warnings: list[str]


class Plan(Record, frozen=True, kw_only=True):
    """plan.json. rows: number of rows by split; experiments by name, in the order of the configuration.

    engine: what trains, and why that one; warnings: sentences for a person on the whole run, beside each experiment's.
    """

    machine: Machine
    engine: EngineChoice | None = None
    rows: dict[str, int]
    experiments: dict[str, PlannedExperiment]
    disk: DiskForecast
    warnings: list[str] = msgspec.field(default_factory=list)
