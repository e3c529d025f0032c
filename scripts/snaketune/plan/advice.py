"""The smallest changes of a configuration that make it fit, in the order of what they cost the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from snaketune.config.sections import TrainConfig
from snaketune.contracts.plan import BatchShape
from snaketune.plan import memory
from snaketune.plan.architecture import Architecture

LENGTHS = (4096, 2048, 1536, 1024, 768, 512, 256, 128, 64)
QUANTIZED_BITS = 4.5  # of 4 bits with their scales
Batches = Callable[[TrainConfig, int | None], list[BatchShape]]


@dataclass(frozen=True)
class Candidate:
    """What decides the memory of a training: a base, a `train` section, and the longest row if rows are truncated."""

    model: Architecture
    train: TrainConfig
    longest: int | None = None

    def total(self, batches: Batches, dtype_bytes: int) -> int:
        """Return the bytes at the peak."""
        return max(
            memory.forecast(self.model, self.train, batch, dtype_bytes).total
            for batch in batches(self.train, self.longest)
        )


def advice(
    model: Architecture, train: TrainConfig, batches: Batches, dtype_bytes: int, usable: int
) -> list[tuple[str, int]]:
    """Return changes in words with the total bytes after each, cumulative, until the run fits.

    A change that saves nothing is left out.

    First what costs time alone (smaller micro-batches with more accumulation, checkpointing), then what costs length,
    then what costs the base's precision. The last entry fits, or nothing here does. batches: the largest micro-batches
    of the rows under a `train` section, cut at a length if one is given; dtype_bytes: of an unquantized weight.
    """
    changes: list[tuple[str, int]] = []
    candidate = Candidate(model, train)
    least = candidate.total(batches, dtype_bytes)
    for words, change in _changes(
        model, train, max(batch.length for batch in batches(msgspec.structs.replace(train, packing=False), None))
    ):
        changed = change(candidate)
        total = changed.total(batches, dtype_bytes)
        if total >= least:
            continue
        candidate, least = changed, total
        changes.append((words, total))
        if total <= usable:
            break
    return changes


def _changes(
    model: Architecture, train: TrainConfig, longest: int
) -> Iterator[tuple[str, Callable[[Candidate], Candidate]]]:
    """Each change in words, and as a function."""

    def training(**changed: Any) -> Callable[[Candidate], Candidate]:
        return lambda candidate: replace(candidate, train=msgspec.structs.replace(candidate.train, **changed))

    def cut(length: int) -> Callable[[Candidate], Candidate]:
        return lambda candidate: replace(candidate, longest=length)

    if train.packing:
        yield "train.packing false", training(packing=False)
    rows, accumulation = train.batch_size, train.gradient_accumulation_steps
    while rows > 1:
        smaller = (rows + 1) // 2
        accumulation = -(-rows * accumulation // smaller)
        rows = smaller
        words = f"train.batch_size {rows} with gradient_accumulation_steps {accumulation}"
        yield words, training(batch_size=rows, gradient_accumulation_steps=accumulation)
    if not train.gradient_checkpointing:
        yield "train.gradient_checkpointing true", training(gradient_checkpointing=True)
    if train.method == "full":
        yield "train.method lora", training(method="lora")
    for length in LENGTHS:
        if length < longest:
            yield f"data.max_length {length} (longer rows are cut)", cut(length)
    if not model.quantized:
        words = "a 4-bit base: model.quantize {bits: 4}, or one of mlx-community's"
        yield words, lambda candidate: replace(candidate, model=candidate.model.with_bits(QUANTIZED_BITS))
