"""What the stage `report` writes of a run: report.json, and what was measured beside it."""

from __future__ import annotations

from typing import Any, Literal

from snaketune.contracts.bake_off import BakeOff
from snaketune.contracts.data import DataReport, LeakReport, SplitReport, TokenReport
from snaketune.contracts.evaluate import Comparison, Opening, Selection, VariantScores
from snaketune.contracts.human_eval import HumanRatings
from snaketune.contracts.lm_eval import HarnessResults
from snaketune.contracts.package import (
    CalibrationResult,
    Fidelity,
    FusedManifest,
    OllamaCheck,
    ServedPrompts,
    ServingCheck,
    ServingTiming,
)
from snaketune.contracts.plan import PilotDecision, PilotedExperiment, Plan
from snaketune.contracts.train import TrainingSummary, TrainingTiming
from snaketune.files import Record

JsonObject = dict[str, Any]  # a file of another stage, as it is
Status = Literal["better", "worse", "mixed", "same", "unknown", "no-go"]
Curves = dict[str, list[tuple[int, float]]]  # of each quantity the points (step, value)


class RejectedRow(Record, frozen=True, kw_only=True):
    """A row of the data that could not be used; row is the start of its raw text."""

    source: str | None
    line: int | None
    reason: str | None
    detail: str | None
    row: str


class TokenFindings(TokenReport, frozen=True, kw_only=True):
    """tokens.json of one base model, of whose verdicts only the first are kept; listed: how many there are."""

    listed: int


class DataFindings(Record, frozen=True, kw_only=True):
    """What became of the data: data/report.json, split.json, leaks.json, and the token filter by base model."""

    report: DataReport | None
    split: SplitReport | None
    leaks: LeakReport | None
    tokens: dict[str, TokenFindings]
    rejected: list[RejectedRow]


class SettingValue(Record, frozen=True, kw_only=True):
    """One value of a setting: how many experiments had it, and the median and the best of their validation losses."""

    value: Any
    experiments: int
    median: float
    best: float


class SettingEffect(Record, frozen=True, kw_only=True):
    """How much a setting matters: spread is how far the medians over its values lie apart, in nats per token."""

    setting: str
    spread: float
    values: list[SettingValue]
    left_out: int


class ExperimentFindings(Record, frozen=True, kw_only=True):
    """One training: its summary.json and its curves."""

    name: str
    summary: TrainingSummary | None
    curves: Curves


class TrainingFindings(Record, frozen=True, kw_only=True):
    """The trainings that the page shows, how many are left out, and the pilot's."""

    experiments: list[ExperimentFindings]
    left_out: int
    setting_effects: list[SettingEffect]
    selection: Selection | None
    pilot: ExperimentFindings


class ProductFile(Record, frozen=True, kw_only=True):
    """A GGUF file or a folder for MLX, by the name of its variant."""

    file: str
    variant: str
    bytes: int


class ModelFindings(Record, frozen=True, kw_only=True):
    """The files of the model; ollama: the command that the Modelfile names."""

    files: list[ProductFile]
    fused: FusedManifest | None
    modelfile: str | None
    ollama: str | None
    card: str | None
    served: ServingCheck | None
    prompts: ServedPrompts | None
    in_ollama: OllamaCheck | None = None  # on request
    base_folder: str | None
    base_quantized: bool = False
    adapter: str | None
    """The folder of the chosen adapter, over `base_folder`: what is run without fusing."""
    lora: str | None
    """The adapter for llama.cpp, where it was exported; the one for PEFT lies in `peft` beside it."""
    calibrations: dict[str, CalibrationResult]
    """By the type: of package.mlx, those that ask for one; of package.gguf, those with an importance matrix."""


class Answer(Record, frozen=True, kw_only=True):
    """A variant's answer to a test row; text is None for a row of plain text.

    chrf: chrF++ of this answer, 0 to 100; exact: whether it equals the reference; bits_per_byte: of the reference.
    """

    text: str | None
    chrf: float | None
    exact: bool | None
    bits_per_byte: float | None
    stopped: bool | None


class AnsweredRow(Record, frozen=True, kw_only=True):
    """A test row with the answer of each variant.

    cluster: the rows that depend on each other share it; change: chrF++ of the tuned variant's answer less that of the
    base's; of a row of plain text the bits per byte of the base less those of the tuned variant.
    """

    id: str
    prompt: str
    reference: str
    category: str | None
    cluster: str
    answers: dict[str, Answer]
    change: float | None


class AnsweredRows(Record, frozen=True, kw_only=True):
    """The rows that every variant answered: those that the page shows, and how many there are."""

    rows: list[AnsweredRow]
    total: int
    base: str | None
    tuned: str | None


class FreePrompt(Record, frozen=True, kw_only=True):
    """A prompt of the configuration, which has no reference, with the answer of each variant."""

    id: str
    prompt: str
    answers: dict[str, str]


class ReportedVariant(Record, frozen=True, kw_only=True):
    """A model variant, what the page calls it, and its scores."""

    name: str
    title: str
    scores: VariantScores


class EvaluationFindings(Record, frozen=True, kw_only=True):
    """What was measured. base, tuned: the variants that the conclusion compares, None where they were not scored.

    answered, exact: how many test rows the tuned variant answered, and how many of them as the reference does; lm_eval:
    what lm-evaluation-harness says, on request; lm_eval_judged: what it judged, in words, where that is not the model
    and the test rows of now.
    """

    variants: list[ReportedVariant]
    base: str | None
    tuned: str | None
    answered: int
    exact: int
    comparison: Comparison | None
    answers: AnsweredRows
    prompts: list[FreePrompt]
    lm_eval: HarnessResults | None = None  # older reports have none
    lm_eval_judged: str | None = None

    def scores_of(self, name: str | None) -> VariantScores | None:
        """The scores of a variant, if it was scored."""
        return next((variant.scores for variant in self.variants if variant.name == name), None)


class Command(Record, frozen=True, kw_only=True):
    """A way to run the file to deploy."""

    title: str
    command: str


class Conclusion(Record, frozen=True, kw_only=True):
    """The conclusion of a run: is the file to deploy better than the base, how good is it, and how is it run.

    quality: how good the answers are, whatever they are compared with; quality_is_low: whether that is a warning;
    vs_previous: the same comparison with the run that compare_with names; by_size: the folder for MLX that is better
    for its size than a GGUF.
    """

    status: Status
    sentence: str
    quality: str | None
    quality_is_low: bool
    vs_previous: str | None
    by_size: str | None
    warnings: list[str]
    file: str | None
    bytes: int | None
    commands: list[Command]
    adapter_commands: list[Command]
    """How the adapter is run over its base, without fusing."""


class PilotOutcome(Record, frozen=True, kw_only=True):
    """The keys of pilot/decision.json that hold no measured time."""

    decision: Literal["go", "no-go"]
    reasons: list[str]
    overridden: bool
    piloted: PilotedExperiment
    likely_cause: str | None


class RunFindings(Record, frozen=True, kw_only=True):
    """All that the files of a run say, but what the machine and the moment decided.

    missing, damaged: the files that the page did without; bake_off: where evaluate.experiments asks for one.
    """

    run: str
    folder: str
    config: JsonObject
    data: DataFindings
    plan: Plan | None
    pilot: PilotOutcome | None
    training: TrainingFindings
    model: ModelFindings
    fidelity: Fidelity | None
    evaluation: EvaluationFindings
    provenance: JsonObject | None
    missing: list[str]
    damaged: list[str]
    bake_off: BakeOff | None = None


class RunReport(RunFindings, frozen=True, kw_only=True):
    """report/report.json, written by write_report: all that the page shows but measured times and memory."""

    human_ratings: HumanRatings | None
    conclusion: Conclusion


class ForecastRow(Record, frozen=True, kw_only=True):
    """A quantity that was forecast, with its range, beside its outcome; ratio is outcome over forecast.

    unit: bytes, seconds, nats or count.
    """

    quantity: str
    unit: str
    forecast: float | None
    low: float | None
    high: float | None
    outcome: float | None
    ratio: float | None


class Measurements(Record, frozen=True, kw_only=True):
    """What the machine and the moment decided, which the page shows and report.json leaves out.

    decision: the pilot's, with its forecast of time; training: timing.json of each experiment; serving: of the serving
    check; stages: seconds by stage; opening: of the test rows, where they were sealed when they were scored
    first.
    """

    decision: PilotDecision | None
    training: dict[str, TrainingTiming]
    serving: ServingTiming | None
    stages: dict[str, float]
    opening: Opening | None
