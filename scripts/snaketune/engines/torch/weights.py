"""Weights of bases and adapters as tensors, straight from their files: no model and no transformers is needed.

Adapters are read in mlx-lm's format and in PEFT's. What mlx-lm has quantized in its affine mode, or this engine in NF4,
is made floats again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file

from snaketune.contracts.train import AdapterConfig
from snaketune.engines.torch import nf4
from snaketune.errors import ModelError
from snaketune.files import StrPath
from snaketune.train import peft_format
from snaketune.train.checkpoints import validate_safetensors

UNPACKED = 1 << 20  # weights that are unpacked at once


def load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on the CPU; raises TrainingError for a broken one."""
    return load_file(validate_safetensors(path))


def read_adapter(folder: StrPath) -> tuple[dict[str, torch.Tensor], AdapterConfig]:
    """The tensors of an adapter by mlx-lm's names, and its description; from a folder of either format."""
    tensors, config = peft_format.read_adapter(folder)
    return {name: torch.tensor(one) for name, one in tensors.items()}, config


def is_quantized(config: Mapping[str, object]) -> bool:
    """Whether a config.json is of a model that mlx-lm has quantized, or of one in NF4."""
    return "quantization" in config or nf4.is_nf4(config)


def without_quantization(config: Mapping[str, object]) -> dict[str, object]:
    """The config.json of the dequantized model."""
    return {key: value for key, value in config.items() if key not in ("quantization", "quantization_config")}


def dequantized(weights: dict[str, torch.Tensor], config: Mapping[str, object]) -> dict[str, torch.Tensor]:
    """All weights by name, packed ones as floats of their scales' format; raises ModelError for another mode."""
    if nf4.is_nf4(config):
        packed = [name for name in weights if f"{name}.{nf4.STATE}" in weights]
        plain = {name: one for name, one in weights.items() if not name.endswith(nf4.PARTS)}
        return plain | {name: nf4.unpack(weights, name) for name in packed}
    settings = cast(Mapping[str, object], config.get("quantization", {}))
    if settings.get("mode", "affine") != "affine":
        raise ModelError(
            f"the torch engine cannot read weights of the mode {settings['mode']}",
            where="model.base",
            why="Only mlx-lm's affine quantization can be made floats again here",
            fix="Set engine: mlx, or name the base that is not quantized",
        )
    found = {}
    for name, weight in weights.items():
        layer, _, part = name.rpartition(".")
        scales, biases = weights.get(f"{layer}.scales"), weights.get(f"{layer}.biases")
        if scales is None or part not in ("weight", "scales", "biases"):
            found[name] = weight
        elif part == "weight" and biases is not None:
            found[name] = _unpacked(weight, scales, biases, group_size(settings, layer))
    return found


def group_size(settings: Mapping[str, object], layer: str) -> int:
    """The group size of a layer; some layers may have one of their own."""
    own = settings.get(layer)
    return int(cast(int, (own if isinstance(own, dict) else settings)["group_size"]))


def _unpacked(packed: torch.Tensor, scales: torch.Tensor, biases: torch.Tensor, group_size: int) -> torch.Tensor:
    """One matrix: rows of bits, lowest first, in 32-bit words; each number is scale * q + bias of its group.

    Some rows at a time: the embedding of a large vocabulary would take twenty times its size on the way.
    """
    columns = scales.shape[1] * group_size
    bits = packed.shape[1] * 32 // columns
    found = torch.empty(packed.shape[0], columns, dtype=scales.dtype)
    rows = max(1, UNPACKED // columns)
    for start in range(0, packed.shape[0], rows):
        some = slice(start, start + rows)
        grouped = _numbers(packed[some], bits).reshape(-1, scales.shape[1], group_size)
        floats = grouped * scales[some].float()[:, :, None] + biases[some].float()[:, :, None]
        found[some] = floats.reshape(-1, columns)
    return found


def _numbers(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The numbers in rows of 32-bit words, as float32."""
    if 32 % bits == 0:
        places = torch.arange(0, 32, bits, dtype=torch.int32)
        mask = (1 << bits) - 1
        return (packed.view(torch.int32)[:, :, None] >> places & mask).to(torch.float32)
    words = packed.view(torch.uint8).reshape(packed.shape[0], -1)
    stream = (words[:, :, None] >> torch.arange(8, dtype=torch.uint8) & 1).reshape(packed.shape[0], -1, bits)
    return (stream.to(torch.int32) << torch.arange(bits, dtype=torch.int32)).sum(-1).to(torch.float32)
