"""How long the full run will take, from what the pilot measured on this machine.

A training's time is its updates, each in proportion to the tokens it reads, and its validations; the pilot has both,
made by the same code on the same kind of rows. Packaging and evaluation are forecast from the model's size and from the
sample that was answered to decide. Ranges are the pilot's own unevenness, twice its standard error, and what stays
unknown (other programs, heat): ten percent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

UNKNOWN = 0.1
BLOCKS = 8
START_SECONDS = 3.0  # of one step: Snakemake's job, the interpreter, the libraries
CONVERT_START_SECONDS = 8.0  # the converter imports torch and transformers
COPY_BYTES_PER_SECOND = 300e6  # reading, adding and writing a model
QUANTIZE_BYTES_PER_SECOND = 60e6  # of 16-bit input, one core


@dataclass(frozen=True)
class Speed:
    """What the pilot measured: seconds for each token that is read in training, and for one validation.

    share: the relative half-width of the range of `per_token`.
    """

    per_token: float
    validation: float
    load: float
    share: float


def measured(timing: dict[str, Any], updates: Sequence[dict[str, Any]], tokens: Sequence[int]) -> Speed:
    """The speed of a training, from its timing.json, its timing.jsonl and the tokens that each update read.

    An update's time is the gap between its line and the one before; the first line and those after a validation have
    other work in their gap, which shows as an outlier, so the median of the gaps' rates stands for all of them.
    """
    by_update = {line["update"]: line["seconds"] for line in updates}
    numbers = sorted(by_update)
    pairs = [(a, b) for a, b in itertools.pairwise(numbers) if b == a + 1]
    rates = np.array([(by_update[b] - by_update[a]) / max(1, tokens[b - 1]) for a, b in pairs])
    total, load = timing["seconds"], timing.get("load_seconds", 0.0)
    if len(rates) < 4:
        per_token = total / max(1, sum(tokens))
        return Speed(per_token, 0.0, load, 0.5)
    # The mean without the tenth of the gaps that are longest: these hold validations and checkpoints.
    kept = np.sort(rates)[: max(4, math.ceil(0.9 * len(rates)))]
    per_token = float(kept.mean())
    in_order = rates[rates <= kept[-1]]
    blocks = np.array([block.mean() for block in np.array_split(in_order, min(BLOCKS, len(in_order)))])
    share = UNKNOWN + 2 * float(blocks.std(ddof=1) / math.sqrt(len(blocks)) / per_token)
    validation = max(0.0, total - by_update[numbers[-1]])
    return Speed(per_token, validation, load, share)


def training_seconds(speed: Speed, tokens: float, updates: int, validate_every: int) -> float:
    """Of a training that reads so many tokens in so many updates, all of them made."""
    validations = 1 + math.ceil(updates / validate_every)
    return START_SECONDS + speed.load + tokens * speed.per_token + validations * speed.validation


def packaging_seconds(parameters: int, gguf_types: Sequence[str]) -> float:
    """Of fusing, converting and quantizing."""
    size = parameters * 2
    copies = 2 * size / COPY_BYTES_PER_SECOND
    quantized = sum(START_SECONDS + size / QUANTIZE_BYTES_PER_SECOND for kind in gguf_types if kind != "f16")
    return 2 * START_SECONDS + CONVERT_START_SECONDS + copies + quantized


def evaluation_seconds(rows: int, artefacts: int, seconds_per_answer: float) -> float:
    """Of answering and scoring so many test rows with each artefact."""
    return artefacts * (2 * START_SECONDS + rows * seconds_per_answer)
