"""A quantized copy of a base model, made once and kept: QLoRA trains over it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
from mlx_lm.utils import load_model, quantize_model, save_config, save_model

from snaketune import files
from snaketune.config.sections import BaseConfig
from snaketune.contracts.data import ModelManifest
from snaketune.errors import ModelError
from snaketune.model import manifest as base

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
    source = Path(base.read_manifest(manifest)["folder"]).expanduser()
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
