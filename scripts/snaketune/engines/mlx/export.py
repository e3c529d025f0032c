"""What MLX's engine writes for other programs, behind `engines.interface.Exporter`."""

from __future__ import annotations

from typing import Any

from snaketune.engines.mlx.fuse import fuse
from snaketune.engines.mlx.peft import peft_adapter
from snaketune.engines.mlx.quantize import quantize_base
from snaketune.errors import ModelError
from snaketune.files import StrPath

__all__ = ["check_fusable", "fuse", "peft_adapter", "quantize_base"]

MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")
"""Mixtures of experts whose stacked weights `experts.unstacked` can name, by config.json's model_type."""
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


def check_fusable(config: dict[str, Any], folder: StrPath) -> None:
    """Raise ModelError for a mixture of experts whose weights cannot be named as llama.cpp reads them."""
    if is_mixture(config) and config.get("model_type") not in MIXTURES:
        raise ModelError(
            f"mixtures of experts of the type {config.get('model_type')} cannot be fused",
            where=str(folder),
            why="mlx-lm holds their experts under other names than llama.cpp reads",
            fix=f"Choose one of another type ({', '.join(MIXTURES)}), or a model without experts",
        )


def is_mixture(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a mixture of experts."""
    counts = (config.get(key) for key in EXPERT_COUNTS)
    return any(isinstance(count, int) and count > 1 for count in counts)
