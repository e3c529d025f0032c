"""Disk forecast: what each stage writes, from the model's shapes and the files that are asked for."""

from __future__ import annotations

import msgspec

from snaketune.config.sections import TrainConfig
from snaketune.contracts.plan import DiskForecast
from snaketune.errors import ResourceError
from snaketune.plan.architecture import Architecture
from snaketune.plan.memory import FLOAT32_BYTES, trainable

# Bits a weight of llama.cpp's types, over a whole model (k-quants keep some matrices in a larger type).
GGUF_BITS = {
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "q8_0": 8.5,
    "q6_k": 6.6,
    "q5_k_m": 5.7,
    "q5_k_s": 5.6,
    "q5_1": 6.0,
    "q5_0": 5.6,
    "q4_k_m": 4.9,
    "q4_k_s": 4.7,
    "q4_1": 5.1,
    "q4_0": 4.7,
    "q3_k_l": 4.3,
    "q3_k_m": 3.9,
    "q3_k_s": 3.6,
    "q2_k": 3.4,
}
UNKNOWN_BITS = 8.5
CHECKPOINTS = 3  # of weights and moments that lie there at once while training: the last two and the best
DISK_MARGIN = 1.1  # full disks fail late; a tenth more is required than is counted


def forecast(
    models: list[tuple[Architecture, TrainConfig, bool]], gguf: list[str], selected: Architecture
) -> DiskForecast:
    """Return the bytes that each stage writes.

    models: for each experiment its architecture, its train section, and whether its base must still be downloaded
    or built; gguf: the types to make of the `selected` one.
    """
    downloads = {id(model): int(model.parameters * model.bits / 8) for model, _, absent in models if absent}
    trained = sum(trainable(model, train) * FLOAT32_BYTES * (1 + 3 * CHECKPOINTS) for model, train, _ in models)
    fused = selected.parameters * 2
    products = sum(int(selected.parameters * GGUF_BITS.get(kind, UNKNOWN_BITS) / 8) for kind in gguf if kind != "f16")
    stages = {"base": sum(downloads.values()), "train": trained, "fused": fused, "f16": fused, "gguf": products}
    return DiskForecast(**stages, total=sum(stages.values()))


def check(stages: DiskForecast, free: int, where: str) -> None:
    """Raise ResourceError when what is to be written does not fit on the disk."""
    needed = int(stages.total * DISK_MARGIN)
    if needed <= free:
        return
    parts = ", ".join(
        f"{name} {size / 1e9:.1f} GB"
        for name, size in msgspec.structs.asdict(stages).items()
        if name != "total" and size
    )
    raise ResourceError(
        f"this run needs {needed / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free",
        where=where,
        why=f"It would stop in the middle. It writes: {parts}",
        fix="Make room, ask for fewer types in package.gguf, or move the folder to a larger disk",
    )
