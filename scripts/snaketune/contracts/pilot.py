"""What the pilot leaves: pilot/dry_run.json and pilot/decision.json. Written by snaketune.pilot."""

from __future__ import annotations

from typing import Literal

from snaketune.files import Record

Result = Literal["pass", "fail", "unknown"]


class DryRunStep(Record, frozen=True, kw_only=True):
    """One step of the dry run, and what it showed."""

    step: str
    message: str


class DryRun(Record, frozen=True, kw_only=True):
    """pilot/dry_run.json: the whole chain on so many rows."""

    rows: int
    steps: list[DryRunStep]


class DryRunTiming(Record, frozen=True, kw_only=True):
    """pilot/dry_run/timing.json: what llama.cpp's converter took on next to nothing."""

    converter_seconds: float


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


class PilotForecast(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What the full run would cost.

    hours: with a range; seconds: by stage (train, other_experiments, package, evaluate); at_once: trainings or
    evaluations side by side; validation_loss: nats a target token, absent after a pilot that is too short for it.
    """

    hours: float
    hours_low: float
    hours_high: float
    seconds: dict[str, float]
    at_once: int
    memory_bytes: int
    pilot_memory_bytes: int
    disk_bytes: int
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
    """pilot/decision.json, always written, also for a no-go. reasons: of a no-go; overridden: by pilot.on_no_go."""

    decision: Literal["go", "no-go"]
    piloted: PilotedExperiment
    reasons: list[str]
    likely_cause: str | None
    criteria: list[Criterion]
    forecast: PilotForecast
    learning_curve: LearningCurve | None
    overridden: bool
    sample: list[SampledAnswer]
