"""What a base takes whose frozen weights are spread over the workers (`train.fsdp`), and when that can be advised."""

from __future__ import annotations

import msgspec

from snaketune.config.sections import TrainConfig
from snaketune.engines import get_capabilities
from snaketune.errors import ConfigError
from snaketune.plan.architecture import Architecture

GATHERED = 2  # blocks that a worker holds whole: the one that it computes, and the next, fetched meanwhile


def held_weight_bytes(model: Architecture, train: TrainConfig, dtype_bytes: int, whole: int) -> int:
    """Bytes of the base that one worker holds: its part of the blocks, those that it gathers, and what is not spread.

    whole: bytes of all weights.
    """
    block = int(model.block_weights * (model.bits / 8 if model.quantized else dtype_bytes))
    spread = model.num_layers * block
    return whole - spread + spread // train.workers + min(GATHERED, model.num_layers) * block


def can_be_advised(model: Architecture, train: TrainConfig) -> bool:
    """Whether there are workers to spread this base over, and the engine can."""
    if train.fsdp or train.workers == 1:
        return False
    try:
        get_capabilities().check_shardable(model.quantized)
    except ConfigError:
        return False
    return True


def spread(train: TrainConfig) -> TrainConfig:
    """The section with the base spread, or as it is where no weight is frozen."""
    return train if train.method == "full" else msgspec.structs.replace(train, fsdp=True)
