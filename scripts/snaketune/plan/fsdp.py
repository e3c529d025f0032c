"""What a base takes whose frozen weights are spread over the workers (`train.fsdp`), and when that can be advised."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from snaketune.config.experiments import host_list
from snaketune.config.sections import TrainConfig
from snaketune.engines import get_capabilities
from snaketune.errors import ConfigError, ResourceError
from snaketune.model.manifest import is_wrapped, stored_dtype
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


def is_converted(config: Mapping[str, object], dtype: str, device: str) -> bool:
    """Whether the weights in memory are others than those in the files, which can stay mapped.

    config: the base's config.json; dtype: of the `model` section.
    """
    stored = stored_dtype(config) or "bfloat16"
    loaded = dtype if dtype != "auto" else "float32" if device == "cpu" else stored
    return loaded != stored or is_wrapped(config)


def check_host_memory(train: TrainConfig, base_bytes: int, usable: int) -> None:
    """Raise ResourceError where the workers of one machine cannot hold a base each, as they do when they load it.

    This is of weights that loading converts; others stay mapped files, which the workers share. base_bytes: of the
    whole base as it is loaded; usable: bytes of the machine's memory.
    """
    workers = train.workers // len(host_list(train.hosts))
    if workers * base_bytes <= usable:
        return
    raise ResourceError(
        f"loading the base takes {workers * base_bytes / 1e9:.1f} GB of a machine's memory, and {usable / 1e9:.1f} GB "
        "may be used",
        where="train.fsdp",
        why=f"Its weights are converted when they are loaded, and each of {workers} workers does so with the whole "
        "base before it keeps its part",
        fix="Name a base that is stored in the format that it is trained in (on a GPU model.dtype: auto keeps the "
        "stored one), or start fewer workers on a machine",
    )
