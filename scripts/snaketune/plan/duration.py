"""How long the full run will take, from what the pilot measured on this machine.

A training's time is its updates, each in proportion to the tokens it reads, and its validations; the pilot has both,
made by the same code on the same kind of rows. Packaging is forecast from the model's size and the speeds that the dry
run measured, evaluation from the sample that was answered to decide. Ranges are the pilot's own unevenness, twice its
standard error, and what stays unknown (other programs, heat): ten percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snaketune.config.products import MLX, MLXType, types_made_twice, types_with_imatrix
from snaketune.contracts.plan import DryRunTiming
from snaketune.contracts.train import StepTiming, TrainingTiming
from snaketune.runtime.progress import format_list

BASE_UNCERTAINTY = 0.1
BLOCKS = 8
MIN_GAPS = 4
TRIMMED_FRACTION = 0.1
START_SECONDS = 0.7  # of a job, before and after what its own process can time
CONVERTER_SECONDS = 8.0  # it imports torch and transformers; where the dry run could not measure it
MERGED_PER_SECOND = 150e6  # weights that are read, merged and written; where the dry run could not measure it
UNKNOWN_TYPE_PER_SECOND = 30e6  # weights that are quantized by one core to a type that the dry run did not try


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

    @classmethod
    def of(cls, gguf: Sequence[str], imatrix: bool | str, mlx: Sequence[str] = ()) -> Types:
        """Return what is quantized under these settings of the section `package`."""
        calibrated = types_with_imatrix(gguf, imatrix)
        plain = [kind for kind in gguf if kind not in calibrated and kind != "f16"]
        return cls([*plain, *types_made_twice(gguf, imatrix)], calibrated, mlx)


def packaging_seconds(parameters: int, types: Types, start: float, tried: DryRunTiming, threads: int) -> float:
    """Of fusing, converting and quantizing.

    start: seconds of a step before its work; tried: what packaging took in the dry run. Fusing and converting are a
    merge each; quantizing reads and writes about as much.
    """
    merge = parameters / tried.merged_per_second
    speeds = [tried.quantized_per_second.get(kind, UNKNOWN_TYPE_PER_SECOND) for kind in types.plain]
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
