"""How long the full run will take, from what the pilot measured on this machine.

A training's time is its updates, each in proportion to the tokens it reads, and its validations; the pilot has both,
made by the same code on the same kind of rows. Packaging and evaluation are forecast from the model's size and from the
sample that was answered to decide. Ranges are the pilot's own unevenness, twice its standard error, and what stays
unknown (other programs, heat): ten percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

UNKNOWN = 0.1
BLOCKS = 8
FEWEST_GAPS = 4
LEFT_OUT = 0.1
START_SECONDS = 3.0  # of one step: Snakemake's job, the interpreter, the libraries
CONVERT_START_SECONDS = 8.0  # the converter imports torch and transformers
COPY_BYTES_PER_SECOND = 300e6  # reading, adding and writing a model
QUANTIZE_BYTES_PER_SECOND = 60e6  # of 16-bit input, one core


@dataclass(frozen=True)
class Speed:
    """What the pilot measured, in seconds: for each token that training reads, and for one validation with its saving.

    share: the relative half-width of the range of `per_token`; 1 where there was too little to measure it by.
    """

    per_token: float
    validation: float
    share: float


def measured(timing: dict[str, Any], lines: Sequence[dict[str, Any]], tokens: Sequence[int]) -> Speed:
    """The speed of a training, from its timing.json, its timing.jsonl and the tokens that each update read.

    An update's time is the gap between its line and the one before. A gap over a validation or a checkpoint holds that
    too, and one over a resumption is meaningless; both are few, so the tenth of the gaps with the highest rates is left
    out. The validations are what the first and the last update leave of their time.
    """
    at = {line["update"]: line["seconds"] for line in lines}
    gaps = [(update, at[update] - at[update - 1]) for update in sorted(at) if update - 1 in at]
    rates = np.array([gap / max(1, tokens[update - 1]) for update, gap in gaps if gap > 0])
    if len(rates) < FEWEST_GAPS:
        return Speed(timing["seconds"] / max(1, sum(tokens)), 0.0, 1.0)
    rates = rates[rates <= np.quantile(rates, 1 - LEFT_OUT)]
    per_token = float(rates.mean())
    blocks = np.array([block.mean() for block in np.array_split(rates, min(BLOCKS, len(rates)))])
    share = UNKNOWN + 2 * float(blocks.std(ddof=1) / math.sqrt(len(blocks)) / per_token)
    whole = timing["resumed_from"] == 0
    ends = [at[1] - tokens[0] * per_token] if 1 in at else []
    ends += [timing["seconds"] - at[max(at)]] if whole else []
    return Speed(per_token, max(0.0, float(np.mean(ends))) if ends else 0.0, share)


def training_seconds(speed: Speed, tokens: float, updates: int, validate_every: int) -> float:
    """Of a training that reads so many tokens in so many updates, all of them made."""
    validations = 1 + math.ceil(updates / validate_every)
    return START_SECONDS + tokens * speed.per_token + validations * speed.validation


def packaging_seconds(parameters: int, gguf_types: Sequence[str]) -> float:
    """Of fusing, converting and quantizing."""
    size = parameters * 2
    copies = 2 * size / COPY_BYTES_PER_SECOND
    quantized = sum(START_SECONDS + size / QUANTIZE_BYTES_PER_SECOND for kind in gguf_types if kind != "f16")
    return 2 * START_SECONDS + CONVERT_START_SECONDS + copies + quantized


def evaluation_seconds(rows: int, artefacts: int, seconds_per_answer: float) -> float:
    """Of answering and scoring so many test rows with each artefact."""
    return artefacts * (2 * START_SECONDS + rows * seconds_per_answer)
