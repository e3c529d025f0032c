"""NF4, the 4-bit format of QLoRA (Dettmers et al. 2023), in the layout of bitsandbytes: written and read.

A block of weights is divided by its largest magnitude and each of them becomes the nearest of sixteen numbers, two to a
byte. On an NVIDIA card transformers and bitsandbytes compute with such a folder as it is; here it is made and, for
fusing, made floats again without either.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from snaketune import files
from snaketune.contracts.data import ModelManifest
from snaketune.errors import ModelError
from snaketune.files import StrPath
from snaketune.model import manifest as base_models
from snaketune.model.manifest import BaseConfig

CODE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The sixteen numbers: quantiles of a normal distribution, with an exact zero."""
STATE = "quant_state.bitsandbytes__nf4"
PARTS = ("absmax", "quant_map", STATE)
"""What stands beside a packed weight: `<name of the weight>.<part>`."""
IN_BLOCK = re.compile(r"\blayers\.\d+\..*\.weight")
SHARD = 2 << 30  # bytes


class Packed(NamedTuple):
    """A matrix in NF4: two numbers to a byte (n / 2, 1), and the largest magnitude of each block."""

    weight: torch.Tensor
    absmax: torch.Tensor


def pack(weight: torch.Tensor, block: int) -> Packed:
    """A matrix in NF4; its size must be a multiple of `block`."""
    blocks = weight.float().reshape(-1, block)
    absmax = blocks.abs().amax(1)
    scaled = blocks / absmax.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    code = torch.tensor(CODE)
    numbers = torch.bucketize(scaled, (code[1:] + code[:-1]) / 2).to(torch.uint8).reshape(-1, 2)
    return Packed((numbers[:, :1] << 4) | numbers[:, 1:], absmax)


def unpack(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """The floats of a packed weight, in the format that it had before; tensors: it and its parts, by name."""
    state = json.loads(bytes(tensors[f"{name}.{STATE}"].tolist()))
    packed = tensors[name].reshape(-1)
    numbers = torch.stack([packed >> 4, packed & 15], 1).reshape(-1, state["blocksize"]).long()
    floats = tensors[f"{name}.quant_map"].float()[numbers] * tensors[f"{name}.absmax"].float()[:, None]
    return floats.reshape(state["shape"]).to(getattr(torch, state["dtype"]))


def shape_of(state: torch.Tensor) -> tuple[int, ...]:
    """The shape of a weight, by the state that stands beside it."""
    return tuple(json.loads(bytes(state.tolist()))["shape"])


def is_nf4(config: Mapping[str, object]) -> bool:
    """Whether a config.json is of a model in this format."""
    return base_models.foreign_format(config) == base_models.NF4


def quantize_base(
    manifest: StrPath, model: dict[str, Any], folder: StrPath, quantized_manifest: StrPath
) -> ModelManifest:
    """Quantize the linear layers of a base's blocks to NF4; see `engines.interface.Quantizer`."""
    described = msgspec.convert({key: model[key] for key in ("base", "revision", "quantize")}, BaseConfig)
    block = int(model["quantize"]["group_size"])
    source = Path(base_models.read_manifest(manifest).folder).expanduser()
    config = files.read_json(source / "config.json")
    if "quantization" in config or "quantization_config" in config:
        raise ModelError(
            "this base is quantized already",
            where="model.quantize",
            fix="Leave model.quantize out, or name the 16-bit base",
        )
    with files.atomic_folder(Path(folder)) as staged:
        for number, tensors in enumerate(_shards(_quantized(source, block)), 1):
            save_file(tensors, staged / f"model-{number:05d}.safetensors", metadata={"format": "pt"})
        _write_index(staged)
        files.write_json(staged / "config.json", config | {"quantization_config": _settings()})
        for pattern in base_models.SMALL:
            for file in source.glob(pattern):
                if file.name not in ("config.json", "model.safetensors.index.json"):
                    shutil.copyfile(file, staged / file.name)
    patterns = base_models.SMALL + base_models.WEIGHTS
    return base_models.write_manifest(quantized_manifest, described, str(folder), patterns=patterns)


def _quantized(source: Path, block: int) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of the quantized model, one weight after another."""
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                weight = file.get_tensor(name)
                if weight.dim() == 2 and IN_BLOCK.search(name) and weight.numel() % block == 0:
                    yield from _as_stored(name, weight, block)
                else:
                    yield name, weight


def _as_stored(name: str, weight: torch.Tensor, block: int) -> Iterator[tuple[str, torch.Tensor]]:
    packed = pack(weight, block)
    dtype = str(weight.dtype).removeprefix("torch.")
    state = {"quant_type": "nf4", "blocksize": block, "dtype": dtype, "shape": list(weight.shape)}
    yield name, packed.weight
    yield f"{name}.absmax", packed.absmax
    yield f"{name}.quant_map", torch.tensor(CODE)
    yield f"{name}.{STATE}", torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)


def _shards(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    held: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        # a weight and its parts stay together
        if sum(one.nbytes for one in held.values()) > SHARD and not name.endswith(PARTS):
            yield held
            held = {}
        held[name] = tensor
    yield held


def _write_index(folder: Path) -> None:
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= dict.fromkeys(file.keys(), path.name)
    files.write_json(
        folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": dict(sorted(found.items()))}
    )


def _settings() -> dict[str, object]:
    """What transformers reads to load such a folder with bitsandbytes."""
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_compute_dtype": "bfloat16",
    }
