"""What MLX's engine writes for other programs: the parts `engines.interface.Exporter` and `Quantizer`.

`fuse` merges an adapter into its base: 16-bit weights, computed in float32 and rounded once, written tensor by tensor.
`merge` gives the same before rounding, for a GGUF whose format may round less.
`peft_adapter` gives the adapter alone, in the layout that transformers and llama.cpp read. `quantize_base` makes the
quantized copy of a base that QLoRA trains over.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
from mlx_lm.utils import load_model, quantize_model, save_config, save_model

from snaketune import files
from snaketune.contracts.data import ModelManifest
from snaketune.engines import sixteen_bit
from snaketune.engines.interface import FusedWeights, MergedTensor, PeftAdapter
from snaketune.engines.mlx import merging
from snaketune.engines.sixteen_bit import SHARD
from snaketune.errors import ModelError
from snaketune.files import StrPath
from snaketune.model import manifest as base
from snaketune.model.manifest import BaseConfig
from snaketune.train import peft_format

GROUPS = {"affine": (32, 64, 128), "mxfp4": (32,), "nvfp4": (16,), "mxfp8": (32,)}
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
    kind = dtype if dtype in sixteen_bit.FORMATS else merged.dtype
    shapes = {name: value.shape for name, value in merged.tensors.items()}
    written = sixteen_bit.write(Path(target), kind, shapes, lambda name: merged.numbers(name, kind), shard)
    return dataclasses.replace(written, config=merged.config)


def merge(base: StrPath, adapter: StrPath, *, drop_prefix: str = "") -> dict[str, MergedTensor]:
    """The tensors that `fuse` writes, before any rounding: float32, each computed when it is loaded, and only once."""
    merged = merging.merge(base, adapter, drop_prefix)

    def load(name: str) -> np.ndarray:
        value = merged.take(name)[0].astype(mx.float32)
        mx.eval(value)
        if value.nbytes > merging.KEPT_BYTES:  # what it was made from would be kept, for no other tensor of that size
            mx.clear_cache()
        return np.array(value, copy=False)

    return {
        name: MergedTensor(tuple(value.shape), functools.partial(load, name)) for name, value in merged.tensors.items()
    }


def peft_adapter(adapter: StrPath) -> PeftAdapter:
    """An adapter folder in PEFT's layout; see `train.peft_format`."""
    return PeftAdapter(*peft_format.export_peft(adapter))
