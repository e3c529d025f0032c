"""Forecast of the full run from what the pilot took: hours by stage with a range, memory and disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snaketune.contracts.pilot import PilotForecast
from snaketune.contracts.plan import Plan, PlannedExperiment
from snaketune.files import StrPath, read_json, read_jsonl
from snaketune.pilot.evidence import EvidenceTiming
from snaketune.pilot.settings import DecisionSettings
from snaketune.plan import duration
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import EpochSampler, nested_subset

HOUR = 3600.0
TUNED_PREFIXES = ("adapter", "fused", "gguf", "pilot", "previous")  # their answers are about as long as references


@dataclass(frozen=True)
class PilotTimes:
    """The pilot's timing.json, and the lines of its timing.jsonl."""

    whole: dict[str, Any]
    steps: list[dict[str, Any]]

    @classmethod
    def read(cls, summary: StrPath) -> PilotTimes:
        """Read both from beside the pilot's summary."""
        beside = Path(summary)
        return cls(read_json(beside.with_name("timing.json")), list(read_jsonl(beside.with_name("timing.jsonl"))))

    @property
    def peak_memory_bytes(self) -> int:
        return max(int(line["peak_memory_bytes"]) for line in [self.whole, *self.steps])


def forecast(
    settings: DecisionSettings,
    plan: Plan,
    rows: TokenStore,
    times: PilotTimes,
    converter_seconds: float,
    sample: EvidenceTiming,
) -> PilotForecast:
    """Return the `forecast` of decision.json, without the validation loss.

    rows: the training rows; converter_seconds: what llama.cpp's converter took in the dry run.
    """
    speed = duration.measured(times.whole, times.steps, tokens_of_steps(settings, rows))
    piloted = plan.experiments[settings.experiment]
    others = [planned for name, planned in plan.experiments.items() if name != settings.experiment]
    start = duration.START_SECONDS + sample.start_seconds
    requests = num_requests(settings, plan.rows["test"])

    def training(planned: PlannedExperiment) -> float:
        size = planned.parameters / piloted.parameters
        return duration.training_seconds(speed, planned.input_tokens, planned.validations, size)

    stages = {
        "train": training(piloted),
        "other_experiments": sum(training(planned) for planned in others),
        "package": duration.packaging_seconds(piloted.parameters, settings.gguf, start, converter_seconds),
        "evaluate": sum(
            evaluation_seconds(variant, settings, sample, start, requests) for variant in settings.variants
        ),
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


def evaluation_seconds(
    variant: str, settings: DecisionSettings, sample: EvidenceTiming, start: float, rows: int
) -> float:
    """Return the seconds of generating and scoring so many rows with one variant.

    A tuned model's answers are taken to be as long as the references, the base's as long as in the sample, and the
    prompted base's the longer of the two, since it is shown references.
    """
    tuned = variant.startswith(TUNED_PREFIXES)
    seen = sample.pilot if tuned else sample.base
    speed = duration.inference_speed(start, seen.alone, seen.together, sample.scoring)
    tokens = sample.reference_tokens if tuned else sample.base.tokens_each
    if variant == "prompted":
        tokens = max(sample.reference_tokens, sample.base.tokens_each)
    return speed.seconds(rows, min(settings.max_new_tokens, tokens), sample.row_tokens)


def num_requests(settings: DecisionSettings, test_rows: int) -> int:
    """Return how many rows each variant generates for and scores: of the test split and of the general set."""
    general = settings.general_rows
    others = Path(general).read_bytes().count(b"\n") if general and Path(general).is_file() else 0
    return min(settings.max_rows, test_rows) + min(settings.max_rows, others)


def wall_clock_seconds(stages: dict[str, float], others: int, variants: int, at_once: int) -> float:
    """Return the seconds by the clock, with so many trainings or evaluations at once."""
    trainings = (stages["train"] + stages["other_experiments"]) / min(1 + others, at_once)
    return trainings + stages["package"] + stages["evaluate"] / max(1, min(variants, at_once))
