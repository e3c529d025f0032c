"""Forecast of the full run from the pilot: hours, memory, disk, and what more training or data brings.

More training: the pilot's own training loss falls about as a power of the steps, and the power of its second half is
carried on. More data: pilots on nested subsets of the rows, all of the same number of steps, show what each doubling
of the rows has brought. Both are extrapolations, and are given with a range or in words.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from snaketune.config.products import GGUF, types_made_twice, types_with_imatrix
from snaketune.config.sections import FidelityConfig, ModelConfig, PilotConfig
from snaketune.contracts.plan import (
    AnsweringSpeed,
    DryRunTiming,
    GGUFSpeed,
    LearningCurve,
    LearningCurvePoint,
    PilotForecast,
    Plan,
    PlannedExperiment,
)
from snaketune.contracts.train import StepTiming, TrainingTiming
from snaketune.files import Record, StrPath, read_json, read_jsonl
from snaketune.package.calibration_rows import CALIBRATION_ROWS, COLLECTED_TOKENS, MAX_TOKENS, VALIDATION_ROWS
from snaketune.package.fidelity_probes import FEWEST_ROWS, ProbeLimits
from snaketune.pilot.criteria import LoggedMetrics, step_losses
from snaketune.plan import answering, duration
from snaketune.plan.duration import Types
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import EpochSampler, nested_subset

HOUR = 3600.0
FOLDERS_READ = 3  # by the proof: base with adapter, fused model, and the merge that it is compared with
MIN_LOSSES = 12
MOST_POWER = 2.0
MIN_GAIN_PER_DOUBLING = 0.02  # a doubling that lowers the loss by less than this share is not worth collecting rows for


class DecisionSettings(Record, frozen=True, kw_only=True):
    """The settings that the pilot's decision depends on.

    experiment: the one that the pilot trained, whose `model` section and rows in a step follow.

    The rest are settings of later stages, for the forecast only. general_rows: the file of evaluate.forgetting.rows.
    """

    experiment: str
    pilot: PilotConfig
    rows_per_step: int
    model: ModelConfig
    seed: int
    max_rows: int
    max_new_tokens: int
    max_hours: float | None
    general_rows: str | None
    variants: list[str]
    gguf: list[str]
    mlx: list[str]
    fidelity: FidelityConfig
    threads: int
    imatrix: bool | str = "auto"


@dataclass(frozen=True)
class SampleTiming:
    """What generating the sample took.

    Both in seconds for each new token: alone, of one answer; together, of as many as are made together on the test
    rows. tokens_each: mean length of answers, those that did not stop counted as the longest allowed.
    """

    alone: float
    together: float
    tokens_each: float


@dataclass(frozen=True)
class EvidenceTiming:
    """What the forecast of evaluation is made from.

    start_seconds: until the model was loaded; scoring: (seconds, tokens) of log-likelihoods; row_tokens and
    reference_tokens: means; general_share: of a general row's length to a test row's.
    """

    start_seconds: float
    scoring: tuple[float, int]
    row_tokens: float
    base: SampleTiming
    pilot: SampleTiming
    reference_tokens: float
    general_share: float = 1.0


@dataclass(frozen=True)
class PilotTimes:
    """The pilot's timing.json, and the lines of its timing.jsonl."""

    whole: TrainingTiming
    steps: list[StepTiming]

    @classmethod
    def read(cls, summary: StrPath) -> PilotTimes:
        """Read both from beside the pilot's summary."""
        beside = Path(summary)
        steps = read_jsonl(beside.with_name("timing.jsonl"), type=StepTiming)
        return cls(read_json(beside.with_name("timing.json"), type=TrainingTiming), list(steps))

    @property
    def peak_memory_bytes(self) -> int:
        return max([self.whole.peak_memory_bytes, *(timing.peak_memory_bytes for timing in self.steps)])


def forecast(
    settings: DecisionSettings,
    plan: Plan,
    rows: TokenStore,
    times: PilotTimes,
    tried: DryRunTiming,
    sample: EvidenceTiming,
) -> PilotForecast:
    """Return the `forecast` of decision.json, without the validation loss.

    rows: the training rows; tried: what packaging took in the dry run.
    """
    speed = duration.measured(times.whole, times.steps, tokens_of_steps(settings, rows))
    piloted = plan.experiments[settings.experiment]
    others = [planned for name, planned in plan.experiments.items() if name != settings.experiment]
    start = duration.START_SECONDS + sample.start_seconds
    of_gguf = gguf_speeds(tried, piloted.parameters)
    answer = {kind: each for kind, each in of_gguf.items() if f"{GGUF}{kind}" in settings.variants}
    speed_of_answers = answering_speed(sample, start, answer)

    def training(planned: PlannedExperiment) -> float:
        size = planned.parameters / piloted.parameters
        return duration.training_seconds(speed, planned.input_tokens, planned.validations, size)

    stages = {
        "train": training(piloted),
        "other_experiments": sum(training(planned) for planned in others),
        "package": duration.packaging_seconds(
            piloted.parameters,
            Types.of(settings.gguf, settings.imatrix, settings.mlx),
            start,
            tried,
            settings.threads,
        )
        + imatrix_seconds(settings, plan.rows, speed_of_answers, of_gguf),
        "fidelity": proof_seconds(settings, piloted.parameters, speed_of_answers, of_gguf)
        + piloted.parameters / tried.merged_per_second,
        "evaluate": evaluation_seconds(settings, plan.rows["test"], speed_of_answers),
    }
    at_once = 1 if plan.machine.device != "cpu" else max(1, (os.cpu_count() or 1) // settings.threads)
    hours = wall_clock_seconds(stages, len(others), len(settings.variants), at_once) / HOUR
    return PilotForecast(
        hours=round(hours, 4),
        hours_low=round(hours * (1 - min(1.0, speed.relative_error)), 4),
        hours_high=round(hours * (1 + speed.relative_error), 4),
        seconds={stage: round(seconds, 1) for stage, seconds in stages.items() if seconds},
        at_once=at_once,
        memory_bytes=max(times.peak_memory_bytes, piloted.memory.total),
        pilot_memory_bytes=times.peak_memory_bytes,
        disk_bytes=plan.disk.total,
        answering=speed_of_answers,
    )


def tokens_of_steps(settings: DecisionSettings, rows: TokenStore) -> list[int]:
    """Return the tokens that each of the pilot's steps reads."""
    indices = nested_subset(rows, settings.pilot.rows, settings.seed)
    sampler = EpochSampler(
        rows.lengths[indices],
        rows.weights[indices],
        rows_per_step=settings.rows_per_step,
        seed=settings.seed,
        epochs=1,
        max_steps=settings.pilot.max_steps,
    )
    return [int((rows.lengths[indices[sampler.rows(step)]] - 1).sum()) for step in range(1, sampler.num_steps + 1)]


def gguf_speeds(tried: DryRunTiming, parameters: int) -> dict[str, GGUFSpeed]:
    """Return what llama.cpp takes with a model of so many weights, by type."""
    return {
        kind: GGUFSpeed(read=each.read * parameters, alone=each.alone * parameters, together=each.together * parameters)
        for kind, each in tried.gguf.items()
    }


def answering_speed(sample: EvidenceTiming, start: float, gguf: dict[str, GGUFSpeed]) -> AnsweringSpeed:
    """Return what answering took in the sample; start: seconds before the first row; gguf: by type."""
    seconds, tokens = sample.scoring
    return AnsweringSpeed(
        start=start,
        base=sample.base.together,
        tuned=sample.pilot.together,
        tuned_alone=sample.pilot.alone,
        scored=seconds / max(1, tokens),
        gguf=gguf,
        row_tokens=sample.row_tokens,
        base_tokens=sample.base.tokens_each,
        reference_tokens=sample.reference_tokens,
        general=sample.general_share,
    )


def evaluation_seconds(settings: DecisionSettings, test_rows: int, speed: AnsweringSpeed) -> float:
    """Return the seconds in which all variants answer and score test rows and the general set's, as many as fit."""
    path = settings.general_rows
    general = answering.num_lines(path) if path and Path(path).is_file() else 0
    rows = answering.rows_in_time(speed, settings, general)
    both = min(rows, test_rows), min(rows, general)
    return sum(answering.seconds(variant, speed, *both, settings.max_new_tokens) for variant in settings.variants)


def general_share(settings: DecisionSettings, rows: StrPath) -> float:
    """Return the mean length of a general row as a share of one of these rows', by the bytes of their files."""
    general = settings.general_rows
    if not general or not Path(general).is_file():
        return 1.0
    ours, theirs = (Path(path).stat().st_size / max(1, answering.num_lines(path)) for path in (rows, general))
    return theirs / max(1.0, ours)


def proof_seconds(
    settings: DecisionSettings, parameters: int, speed: AnsweringSpeed, gguf: Mapping[str, GGUFSpeed]
) -> float:
    """Return the seconds of check_fidelity, should its first look at the model decide, but for merging once more.

    Base, adapter, fused model, the merge that it is compared with and every product read the rows. Adapter and products
    complete the prompts, one after another, and so does the fused model if it is small.
    """
    wanted = settings.fidelity
    limits = ProbeLimits(wanted.rows, wanted.num_prompts, wanted.max_new_tokens).first_look(parameters)
    row_tokens = min(limits.row_tokens, speed.row_tokens)
    tokens = min(wanted.rows * row_tokens, max(limits.tokens or 0, FEWEST_ROWS * row_tokens))
    completed = limits.prompts * min(limits.max_new_tokens, speed.reference_tokens)
    own = GGUFSpeed(read=speed.scored, alone=speed.tuned_alone, together=speed.tuned)
    products = [gguf.get(kind, own) for kind in {"f16", *settings.gguf}] + [own for _ in settings.mlx]
    folders = FOLDERS_READ * speed.start + (1 + FOLDERS_READ) * tokens * own.read + completed * own.alone
    return folders + sum(duration.START_SECONDS + tokens * each.read + completed * each.alone for each in products)


def imatrix_seconds(
    settings: DecisionSettings, rows: Mapping[str, int], speed: AnsweringSpeed, gguf: Mapping[str, GGUFSpeed]
) -> float:
    """Return the seconds of collecting an importance matrix and of judging by it, beside quantizing.

    Training rows are read once. The validation rows are scored in 16 bits once, and of each type with the matrix, and
    without it if it can be made so. rows: of each split.
    """
    types = types_with_imatrix(settings.gguf, settings.imatrix)
    if not types:
        return 0.0
    each = min(MAX_TOKENS, speed.row_tokens)
    collected = min(COLLECTED_TOKENS, each * min(CALIBRATION_ROWS, rows["train"]))
    judged = each * min(VALIDATION_ROWS, rows["valid"])
    scored = ["f16", "f16", *types, *types_made_twice(settings.gguf, settings.imatrix)]
    own = GGUFSpeed(read=speed.scored, alone=speed.tuned_alone, together=speed.tuned)
    read = [gguf.get(kind, own).read for kind in scored]
    return duration.START_SECONDS + collected * read[0] + judged * sum(read[1:])


def wall_clock_seconds(stages: dict[str, float], others: int, variants: int, at_once: int) -> float:
    """Return the seconds by the clock, with so many trainings or evaluations at once."""
    trainings = (stages["train"] + stages["other_experiments"]) / min(1 + others, at_once)
    return trainings + stages["package"] + stages["fidelity"] + stages["evaluate"] / max(1, min(variants, at_once))


def expected_loss(
    metrics: Sequence[LoggedMetrics], best: float | None, updates: int, full_updates: int
) -> dict[str, float] | None:
    """The full run's validation loss: {"validation_loss", "validation_loss_low", "validation_loss_high"}.

    best: the pilot's best validation loss after `updates`. The worst of the range is what the pilot has shown already;
    the best carries its second half's power, and two standard errors more, on to `full_updates`. None where the pilot
    is too short to have one.
    """
    losses = step_losses(metrics)
    second = [(u, value) for u, value in losses if u > updates / 2 and value > 0 and math.isfinite(value)]
    if best is None or not math.isfinite(best) or len(second) < MIN_LOSSES or full_updates <= updates:
        return None
    x, y = np.log(np.array(second)).T
    centred = x - x.mean()
    power = -float((centred * y).sum() / (centred**2).sum())
    rest = y - y.mean() + power * centred
    error = math.sqrt(float((rest**2).sum()) / (len(x) - 2) / float((centred**2).sum()))
    longer = full_updates / updates
    middle, most = (min(MOST_POWER, max(0.0, each)) for each in (power, power + 2 * error))
    return {
        "validation_loss": round(best * longer**-middle, 4),
        "validation_loss_low": round(best * longer**-most, 4),
        "validation_loss_high": round(best, 4),
    }


def assess_learning_curve(results: Sequence[tuple[int, float | None]]) -> LearningCurve:
    """Return whether more rows are likely to help, from (rows, best validation loss) of nested subsets."""
    known = sorted((rows, loss) for rows, loss in results if loss is not None and math.isfinite(loss))
    points = [LearningCurvePoint(rows=rows, validation_loss=loss) for rows, loss in known]
    if len(known) < 2 or known[-1][0] == known[-2][0]:
        message = "the learning curve needs two subsets of different size with a finite loss"
        return LearningCurve(points=points, per_doubling=None, more_data_helps="unclear", message=message)
    (few, before), (many, after) = known[-2:]
    per_doubling = (before - after) / math.log2(many / few)
    losses = f"{before:.3f} to {after:.3f}"
    message = f"each doubling of the rows lowered the validation loss by {per_doubling:.3f} (from {losses})"
    helps: Literal["likely", "unlikely", "unclear"]
    if per_doubling > MIN_GAIN_PER_DOUBLING * after:
        helps, message = "likely", f"{message}: more data is likely to help"
    elif per_doubling < -MIN_GAIN_PER_DOUBLING * after:
        helps, message = "unclear", f"more rows did not lower the loss ({losses}): the subsets are too small"
    else:
        helps, message = "unlikely", f"{message}: more data of this kind is unlikely to help much"
    return LearningCurve(points=points, per_doubling=round(per_doubling, 5), more_data_helps=helps, message=message)
