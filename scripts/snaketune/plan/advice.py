"""The smallest changes of a configuration that make it fit, in the order of what they cost the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from snaketune.plan import memory
from snaketune.plan.architecture import Architecture
from snaketune.plan.memory import Batch

LENGTHS = (4096, 2048, 1536, 1024, 768, 512, 256, 128, 64)
QUANTIZED_BITS = 4.5  # of 4 bits with their scales
Batches = Callable[[dict[str, Any], int | None], list[Batch]]


@dataclass(frozen=True)
class Wanted:
    """What is to be trained, as far as memory goes: a base, a `train` section, and the longest row if rows are cut."""

    model: Architecture
    train: dict[str, Any]
    longest: int | None = None

    def total(self, batches: Batches, number: int) -> int:
        """Bytes at the peak."""
        return max(
            memory.forecast(self.model, self.train, batch, number)["total"]
            for batch in batches(self.train, self.longest)
        )


def advice(
    model: Architecture, train: dict[str, Any], batches: Batches, number: int, usable: int
) -> list[tuple[str, int]]:
    """Changes in words with the total bytes after each, cumulative, until the run fits; what would gain nothing is
    left out.

    First what costs time alone (smaller micro-batches with more accumulation, checkpointing), then what costs length,
    then what costs the base's precision. The last entry fits, or nothing here does. batches: the largest micro-batches
    of the rows under a `train` section, cut at a length if one is given; number: bytes of an unquantized number.
    """
    said: list[tuple[str, int]] = []
    wanted = Wanted(model, train)
    least = wanted.total(batches, number)
    for words, change in _changes(
        model, train, max(batch.length for batch in batches(train | {"packing": False}, None))
    ):
        changed = change(wanted)
        total = changed.total(batches, number)
        if total >= least:
            continue
        wanted, least = changed, total
        said.append((words, total))
        if total <= usable:
            break
    return said


def _changes(
    model: Architecture, train: dict[str, Any], longest: int
) -> Iterator[tuple[str, Callable[[Wanted], Wanted]]]:
    """Each change in words, and as a function."""

    def training(**changed: Any) -> Callable[[Wanted], Wanted]:
        return lambda wanted: replace(wanted, train=wanted.train | changed)

    def cut(length: int) -> Callable[[Wanted], Wanted]:
        return lambda wanted: replace(wanted, longest=length)

    if train["packing"]:
        yield "train.packing false", training(packing=False)
    rows, accumulation = train["batch_size"], train["gradient_accumulation_steps"]
    while rows > 1:
        smaller = (rows + 1) // 2
        accumulation = -(-rows * accumulation // smaller)
        rows = smaller
        words = f"train.batch_size {rows} with gradient_accumulation_steps {accumulation}"
        yield words, training(batch_size=rows, gradient_accumulation_steps=accumulation)
    if not train["gradient_checkpointing"]:
        yield "train.gradient_checkpointing true", training(gradient_checkpointing=True)
    if train["method"] == "full":
        yield "train.method lora", training(method="lora")
    for length in LENGTHS:
        if length < longest:
            yield f"data.max_length {length} (longer rows are cut)", cut(length)
    if not model.quantized:
        words = "a 4-bit base: model.quantize {bits: 4}, or one of mlx-community's"
        yield words, lambda wanted: replace(wanted, model=wanted.model.with_bits(QUANTIZED_BITS))
