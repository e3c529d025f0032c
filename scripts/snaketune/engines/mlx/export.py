"""What MLX's engine writes for other programs: the parts `engines.interface.Exporter` and `Quantizer`.

`fuse` merges an adapter into its base: 16-bit weights, computed in float32 and rounded once, written tensor by tensor.
`merge` gives the same before rounding, for a GGUF whose format may round less.
`peft_adapter` gives the adapter alone, in the layout that transformers and llama.cpp read. `quantize_base` makes the
quantized copy of a base that QLoRA trains over.
"""

from __future__ import annotations

import functools
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
from mlx_lm.utils import load_model, quantize_model, save_config, save_model

from snaketune import files
from snaketune.config.sections import BaseConfig
from snaketune.contracts.data import ModelManifest
from snaketune.engines.interface import FusedWeights, MergedTensor, PeftAdapter
from snaketune.engines.mlx import merging
from snaketune.errors import ModelError, PackageError
from snaketune.files import StrPath, write_json
from snaketune.model import manifest as base
from snaketune.train import peft_format

GROUPS = {"affine": (32, 64, 128), "mxfp4": (32,), "nvfp4": (16,), "mxfp8": (32,)}
SHARD = 2 << 30  # bytes of a file at most
STORED = {"float16": "F16", "bfloat16": "BF16"}
BITS = {"affine": (2, 3, 4, 5, 6, 8), "mxfp4": (4,), "nvfp4": (4,), "mxfp8": (8,)}


def quantize_base(
    manifest: files.StrPath, model: dict[str, Any], folder: files.StrPath, quantized_manifest: files.StrPath
) -> ModelManifest:
    """Quantize the base of `manifest` as `model["quantize"]` says, into `folder`, and write its manifest.

    Tokenizer and settings are copied as they are. Layers whose width is no multiple of the group size stay as they
    are, as in mlx-lm. Raises ModelError for a base that is quantized already.
    """
    wanted = model["quantize"]
    described = msgspec.convert({key: model[key] for key in ("base", "revision", "quantize")}, BaseConfig)
    _check(wanted)
    source = Path(base.read_manifest(manifest).folder).expanduser()
    loaded, config = load_model(source, lazy=True)
    if "quantization" in config:
        raise ModelError(
            "this base is quantized already",
            where="model.quantize",
            fix="Leave model.quantize out, or name the 16-bit base",
        )
    loaded, config = quantize_model(loaded, config, wanted["group_size"], wanted["bits"], mode=wanted["mode"])
    mx.eval(loaded.parameters())
    target = Path(folder)
    with files.atomic_folder(target) as staged:
        save_model(staged, loaded)
        save_config(config, config_path=staged / "config.json")
        for pattern in base.SMALL:
            for file in source.glob(pattern):
                if file.name not in ("config.json", "model.safetensors.index.json"):
                    shutil.copyfile(file, staged / file.name)
    return base.write_manifest(quantized_manifest, described, str(folder), patterns=base.SMALL + base.WEIGHTS)


def _check(wanted: dict[str, Any]) -> None:
    mode = wanted["mode"]
    for key, allowed in (("group_size", GROUPS[mode]), ("bits", BITS[mode])):
        if wanted[key] not in allowed:
            raise ModelError(
                f"{mode} cannot have {key} {wanted[key]}",
                where=f"model.quantize.{key}",
                fix=f"Allowed: {', '.join(map(str, allowed))}",
            )


def fuse(
    base: StrPath, adapter: StrPath, target: StrPath, *, dtype: str = "auto", drop_prefix: str = "", shard: int = SHARD
) -> FusedWeights:
    """Write the weights of `base` with the adapter folder merged in as safetensors into the folder `target`.

    dtype `auto` (and `float32`) keeps a 16-bit base's own format and makes a 32-bit one float16. The files have at most
    `shard` bytes each, and are written tensor by tensor: memory holds the largest one, not the model or a file.
    drop_prefix: is left out of the tensors' names.
    """
    merged = merging.merge(base, adapter, drop_prefix)
    kind = dtype if dtype in merging.SIXTEEN_BIT else merged.dtype
    sizes = {name: value.shape for name, value in merged.tensors.items()}
    groups = list(files.in_shards({name: 2 * math.prod(sizes[name]) for name in sorted(sizes)}, shard))
    rounding = _Rounding(kind, np.empty(max(map(math.prod, sizes.values())), np.uint16))
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = {}
    index: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors = ((key, rounding.take(merged, key, folder)) for key in group)
        shapes = {key: sizes[key] for key in group}
        digests[name] = files.write_safetensors(folder / name, STORED[kind], shapes, tensors)
        index |= dict.fromkeys(group, name)
    names = list(digests)
    count = sum(map(math.prod, sizes.values()))
    if len(groups) > 1:
        names.append("model.safetensors.index.json")
        stated = {"metadata": {"total_size": 2 * count}, "weight_map": dict(sorted(index.items()))}
        write_json(folder / names[-1], stated)
    return FusedWeights(dtype=kind, files=names, parameters=count, digests=digests, rounding=rounding.meter.result())


@dataclass
class _Rounding:
    """Takes merged tensors in a 16-bit format, one after another, and measures what each format loses of them."""

    dtype: str
    scratch: np.ndarray
    meter: merging.RoundingMeter = field(default_factory=merging.RoundingMeter)

    def take(self, merged: merging.Merged, name: str, target: Path) -> np.ndarray:
        """The bits of one tensor, until the next is taken; raises PackageError where the format does not hold them."""
        value, sample = merged.take(name)
        numbers = merging.in_16_bits(value, self.dtype, self.scratch)
        largest = merging.largest_bits(numbers)
        if largest >= merging.INFINITE[self.dtype]:
            raise PackageError(
                f"the merged weights of {name} are not finite in 16 bits",
                where=str(target),
                why="A value is beyond what the number format holds, or the adapter itself is broken",
                fix="Set model.dtype: bfloat16, whose range is that of 32 bits",
            )
        in_float16 = largest <= merging.LARGEST_FLOAT16[self.dtype]
        self.meter.add(sample, value.size / max(1, sample.merged.size), in_float16)
        return numbers


def merge(base: StrPath, adapter: StrPath, *, drop_prefix: str = "") -> dict[str, MergedTensor]:
    """The tensors that `fuse` writes, before any rounding: float32, each computed when it is loaded, and only once."""
    merged = merging.merge(base, adapter, drop_prefix)

    def load(name: str) -> np.ndarray:
        value = merged.take(name)[0].astype(mx.float32)
        return np.array(value, copy=False)

    return {
        name: MergedTensor(tuple(value.shape), functools.partial(load, name)) for name, value in merged.tensors.items()
    }


def peft_adapter(adapter: StrPath) -> PeftAdapter:
    """An adapter folder in PEFT's layout; see `train.peft_format`."""
    return PeftAdapter(*peft_format.export_peft(adapter))
