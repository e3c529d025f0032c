"""How long the full run will take, from what the pilot measured on this machine, and how many rows fit into a time.

A training's time is its updates, each in proportion to the tokens it reads, and its validations; the pilot has both,
made by the same code on the same kind of rows. Packaging is forecast from the model's size and the speeds that the dry
run measured, evaluation from the sample that was answered to decide. Ranges are the pilot's own unevenness, twice its
standard error, and what stays unknown (other programs, heat): ten percent.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from snaketune.config.products import GGUF, MLX, MLXType
from snaketune.contracts.plan import AnsweringSpeed, DryRunTiming, PilotDecision
from snaketune.contracts.train import StepTiming, TrainingTiming
from snaketune.evaluate.step_config import PredictionConfig
from snaketune.files import StrPath, read_json
from snaketune.runtime.progress import format_list

BASE_UNCERTAINTY = 0.1
BLOCKS = 8
MIN_GAPS = 4
TRIMMED_FRACTION = 0.1
START_SECONDS = 0.7  # of a job, before and after what its own process can time
CONVERTER_SECONDS = 8.0  # it imports torch and transformers; where the dry run could not measure it
MERGED_PER_SECOND = 150e6  # weights that are read, merged and written; where the dry run could not measure it
UNKNOWN_TYPE_PER_SECOND = 30e6  # weights that are quantized by one core to a type that the dry run did not try
# variants whose answers are about as long as references
TUNED_PREFIXES = ("adapter", "fused", "gguf", "mlx", "pilot", "previous")
KINDS = ("base", "prompted", "adapter")  # one variant of each speed
FEWEST_ROWS = 20  # fewer would show nothing, however long they take
HOUR = 3600.0


@dataclass(frozen=True)
class Speed:
    """What the pilot measured, in seconds: for each token that training reads, and for one validation with its saving.

    relative_error: the relative half-width of the range of `per_token`; 1 where there was too little to measure it by.
    """

    per_token: float
    validation: float
    relative_error: float


def measured(timing: TrainingTiming, lines: Sequence[StepTiming], tokens: Sequence[int]) -> Speed:
    """The speed of a training, from its timing.json, its timing.jsonl and the tokens that each update read.

    An update's time is the gap between its line and the one before. A gap over a validation or a checkpoint holds that
    too, and one over a resumption is meaningless; both are few, so the tenth of the gaps with the highest rates is left
    out. The validations are what the first and the last update leave of their time.
    """
    at = {line.step: line.seconds for line in lines}
    gaps = [(update, at[update] - at[update - 1]) for update in sorted(at) if update - 1 in at]
    rates = np.array([gap / max(1, tokens[update - 1]) for update, gap in gaps if gap > 0])
    whole = timing.resumed_from == 0
    if len(rates) >= MIN_GAPS:
        rates = rates[rates <= np.quantile(rates, 1 - TRIMMED_FRACTION)]
        per_token = float(rates.mean())
        blocks = np.array([block.mean() for block in np.array_split(rates, min(BLOCKS, len(rates)))])
        relative_error = BASE_UNCERTAINTY + 2 * float(blocks.std(ddof=1) / math.sqrt(len(blocks)) / per_token)
    elif whole and gaps:  # lines may come two at a time, so single gaps say nothing
        read = sum(tokens[update - 1] for update, _ in gaps)
        per_token, relative_error = max(0.0, sum(gap for _, gap in gaps)) / max(1, read), 1.0
    else:
        return Speed(timing.seconds / max(1, sum(tokens)), 0.0, 1.0)
    ends = [at[1] - tokens[0] * per_token] if 1 in at else []
    ends += [timing.seconds - at[max(at)]] if whole else []
    return Speed(per_token, max(0.0, float(np.mean(ends))) if ends else 0.0, relative_error)


def training_seconds(speed: Speed, tokens: float, validations: int, size: float = 1) -> float:
    """Of a training that reads so many tokens, all its updates made; size: of its model, to the pilot's."""
    return size * (tokens * speed.per_token + validations * speed.validation)


@dataclass(frozen=True)
class Types:
    """What is quantized: types of package.gguf without an importance matrix, those with one, and those of package.mlx.

    A type may be made both ways.
    """

    plain: Sequence[str]
    calibrated: Sequence[str] = ()
    mlx: Sequence[str] = ()


def packaging_seconds(parameters: int, types: Types, start: float, tried: DryRunTiming, threads: int) -> float:
    """Of fusing, converting and quantizing.

    start: seconds of a step before its work; tried: what packaging took in the dry run. Fusing and converting are a
    merge each; quantizing reads and writes about as much.
    """
    merge = parameters / tried.merged_per_second
    speeds = [tried.quantized_per_second.get(kind, UNKNOWN_TYPE_PER_SECOND) for kind in types.plain if kind != "f16"]
    speeds += [tried.calibrated_per_second.get(kind, UNKNOWN_TYPE_PER_SECOND) for kind in types.calibrated]
    speeds += [UNKNOWN_TYPE_PER_SECOND for _ in types.mlx]
    quantized = sum(START_SECONDS + merge + parameters / (speed * threads) for speed in speeds)
    return start + START_SECONDS + tried.converter_seconds + 2 * merge + quantized


def not_forecast(mlx: Sequence[str]) -> list[str]:
    """Return, as sentences, which work on the types of package.mlx no forecast counts."""
    calibrated = [f"{MLX}{kind}" for kind in mlx if MLXType.named(kind).calibration]
    if not calibrated:
        return []
    return [
        f"the time of calibrating {format_list(calibrated)} is in no forecast: it trains or searches with quantized "
        "weights, which neither dry run nor pilot does; it can take longer than all other packaging"
    ]


def answering_seconds(variant: str, speed: AnsweringSpeed, rows: int, max_new_tokens: int) -> float:
    """Return the seconds of generating for and scoring so many rows with one variant.

    A tuned model's answers are taken to be as long as the references, the base's as long as in the sample, and the
    prompted base's the longer of the two, since it is shown references. Prompts are read once more than whole rows.
    """
    tuned = variant.startswith(TUNED_PREFIXES)
    start, scored, token = speed.start, speed.scored, speed.tuned if tuned else speed.base
    if (gguf := speed.gguf.get(variant.removeprefix(GGUF))) is not None:
        start, scored, token = START_SECONDS, gguf.read, gguf.together
    tokens = speed.reference_tokens if tuned else speed.base_tokens
    if variant == "prompted":
        tokens = max(speed.reference_tokens, speed.base_tokens)
    read = speed.row_tokens + max(0.0, speed.row_tokens - speed.reference_tokens)
    return start + rows * (min(max_new_tokens, tokens) * token + read * scored)


class AnsweringLimits(Protocol):
    """What limits the answers: the keys of these names in the section `evaluate`."""

    @property
    def max_rows(self) -> int: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def max_hours(self) -> float | None: ...


def rows_in_time(speed: AnsweringSpeed, limits: AnsweringLimits, general: int) -> int:
    """Return how many rows, at most `max_rows`, the slowest kind of variant answers within `max_hours`.

    general: rows of the general set, of which as many are answered as of the test rows. The same number for every
    variant, whichever a run has, so that they can be compared; never fewer than FEWEST_ROWS.
    """
    if limits.max_hours is None:
        return limits.max_rows
    for rows in range(limits.max_rows, FEWEST_ROWS, -1):
        count = rows + min(rows, general)
        if (
            max(answering_seconds(kind, speed, count, limits.max_new_tokens) for kind in KINDS)
            <= limits.max_hours * HOUR
        ):
            return rows
    return min(limits.max_rows, FEWEST_ROWS)


def within_hours(config: PredictionConfig, decision: StrPath, general: StrPath | None = None) -> PredictionConfig:
    """Return the settings with so many rows as `max_hours` allows, by the pilot's decision; general: the set's file."""
    speed = read_json(decision, type=PilotDecision).forecast.answering
    if speed is None:
        return config
    rows = rows_in_time(speed, config, num_lines(general))
    if rows < config.max_rows:
        print(
            f"snaketune: at most {rows} rows are answered: {config.max_rows} would take longer than "
            f"evaluate.max_hours ({config.max_hours:g}) with one model, by the pilot's forecast",
            file=sys.stderr,
        )
    return msgspec.structs.replace(config, max_rows=rows)


def num_lines(path: StrPath | None) -> int:
    """Return the rows of a JSON Lines file; 0 without one."""
    if path is None:
        return 0
    with open(path, "rb") as lines:
        return sum(1 for _ in lines)
