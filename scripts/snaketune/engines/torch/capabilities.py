"""What the torch engine can do and what it computes on: the part `engines.interface.Capabilities`.

The numbers stand here, and not where they are used, so that a forecast can read them without importing PyTorch.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from snaketune.engines.interface import FourBitBase, ModelLibrary
from snaketune.errors import ConfigError, ModelError, ResourceError
from snaketune.files import StrPath
from snaketune.model.manifest import NF4, foreign_format, is_mixture
from snaketune.runtime.engine import torch_build
from snaketune.runtime.machine import DeviceInfo

LOSS_SLICE_BYTES = 64 << 20
"""float32 logits that the loss computes at once."""
FLAT_CHUNK = 1 << 19
"""Weights that an optimizer step works through at once."""
COMPLETION_BATCH = 32
"""Completions that are generated at once."""
ATTENTION_IN_TILES = sys.platform != "darwin"
"""PyTorch's attention holds no probabilities on CPUs and NVIDIA cards; with a mask, and on MPS, it may."""
LISTED_AS = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
"""What transformers calls its list of causal language models by model type."""


def check_fusable(config: dict[str, Any], folder: StrPath) -> None:
    """Raise ModelError for a mixture of experts, and for a base in a format that is not made floats again here.

    transformers stacks the weights of experts, which no adapter here reaches. A weight in an unknown format would be
    fused as it is stored.
    """
    if is_mixture(config):
        raise ModelError(
            f"the torch engine does not train mixtures of experts ({config.get('model_type')})",
            where=str(folder),
            why="transformers holds the weights of their experts in stacks, which a LoRA layer cannot stand for",
            fix="Set engine: mlx, or choose a model without experts",
        )
    stored = foreign_format(config)
    if stored not in (None, NF4):
        raise ModelError(
            f"the torch engine cannot read a base that is quantized to {stored}",
            where=str(folder),
            why="It reads MLX's affine format and NF4 without double quantization, and would merge others wrongly",
            fix="Name the base that is not quantized; on an NVIDIA card model.quantize: "
            "{bits: 4, group_size: 64, mode: nf4} holds it in 4 bits",
        )


def keeps_quantized(mode: str, device: str) -> bool:
    """Whether such a base stays as it is: PyTorch computes in NF4 alone, and on an NVIDIA card alone."""
    return mode == NF4 and device == "cuda"


def four_bit_base(device: str, /) -> FourBitBase:
    """NF4 on an NVIDIA card; elsewhere MLX's own format, which the MLX engine alone computes in."""
    if device == "cuda":
        return FourBitBase("a 4-bit base: model.quantize {bits: 4, group_size: 64, mode: nf4}", "nf4")
    return FourBitBase("engine: mlx with a 4-bit base: model.quantize {bits: 4}, or one of mlx-community's", "affine")


def model_library() -> ModelLibrary:
    """Transformers, its model types read from its source: importing its models takes a second."""
    found = importlib.util.find_spec("transformers")
    if found is None:
        raise ResourceError("transformers is not installed", where="engine: torch", fix="Run `make setup`")
    return ModelLibrary("transformers", version("transformers"), model_types_in(Path(str(found.origin)).parent))


def model_types_in(package: Path) -> frozenset[str]:
    """The model types of which the source of a transformers has a causal language model; package: its folder."""
    for node in ast.parse((package / "models" / "auto" / "modeling_auto.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == LISTED_AS:
            assert isinstance(node.value, ast.Call)
            return frozenset(dict(ast.literal_eval(node.value.args[0])))
    raise ResourceError("transformers is not the one this version was made for", where=str(package))


def check_shardable(quantized: bool) -> None:
    """Raise ConfigError for a quantized base, whose packed weights are no tensors that FSDP could spread."""
    if quantized:
        raise ConfigError(
            "a quantized base is not spread over workers",
            where="train.fsdp",
            why="It is held packed, or made floats again when it is loaded",
            fix="Name the base that is not quantized, or set train.fsdp: false",
        )


def describe_device() -> DeviceInfo:
    """The device that PyTorch computes on; one that is built for CPUs alone is not imported to ask."""
    if (torch_build() or "").endswith("+cpu"):
        return DeviceInfo(device="cpu", name=sys.platform)
    import torch

    from snaketune.engines.torch.device import best_device

    device = best_device()
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        return DeviceInfo(device="cuda", name=card.name, memory=card.total_memory)
    if device.type == "mps":
        working_set = torch.mps.recommended_max_memory()
        return DeviceInfo(device="metal", name=None, memory=working_set, working_set=working_set)
    return DeviceInfo(device="cpu", name=sys.platform)
