"""The smallest changes of a configuration that make it fit, in the order of what they cost the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from snaketune.plan import memory
from snaketune.plan.architecture import Architecture
from snaketune.plan.memory import Batch

LENGTHS = (4096, 2048, 1536, 1024, 768, 512, 256, 128, 64)


def advice(
    model: Architecture, train: dict[str, Any], batch: Batch, dtype_bytes: int, usable: int
) -> list[tuple[str, int]]:
    """Changes in words with the total bytes after each, cumulative, until the run fits. batch: of rows not packed.

    First what costs time alone (smaller micro-batches with more accumulation, checkpointing), then what costs length,
    then what costs the base's precision. The last entry fits, or nothing here does.
    """
    said: list[tuple[str, int]] = []
    for words, smaller, changed, cut in _changes(model, train, batch):
        total = memory.forecast(smaller, changed, cut, dtype_bytes)["total"]
        if said and total >= said[-1][1]:
            continue
        said.append((words, total))
        if total <= usable:
            break
    return said


def _changes(
    model: Architecture, train: dict[str, Any], batch: Batch
) -> Iterator[tuple[str, Architecture, dict[str, Any], Batch]]:
    if train["packing"]:
        train = train | {"packing": False}
        yield "train.packing false", model, train, batch
    rows, accumulation = train["batch_size"], train["accumulation"]
    while rows > 1:
        smaller = (rows + 1) // 2
        accumulation = -(-rows * accumulation // smaller)
        rows = smaller
        train = train | {"batch_size": rows, "accumulation": accumulation}
        batch = Batch(min(rows, batch.rows), batch.length, batch.targets * min(rows, batch.rows) // batch.rows)
        yield f"train.batch_size {rows} with accumulation {accumulation}", model, train, batch
    if not train["gradient_checkpointing"]:
        train = train | {"gradient_checkpointing": True}
        yield "train.gradient_checkpointing true", model, train, batch
    if train["method"] == "full":
        train = train | {"method": "lora"}
        yield "train.method lora", model, train, batch
    for length in LENGTHS:
        if length < batch.length:
            batch = Batch(batch.rows, length, min(batch.targets, batch.rows * length))
            yield f"data.max_length {length} (longer rows are cut)", model, train, batch
    if not model.quantized:
        model = model.with_bits(4.5)
        yield "a 4-bit base: model.quantize {bits: 4}, or one of mlx-community's", model, train, batch
