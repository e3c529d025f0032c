"""What MLX's engine writes for other programs: the parts `engines.interface.Exporter` and `Quantizer`.

`fuse` merges an adapter into its base: 16-bit weights, computed in float32 and rounded once, written shard by shard. A
quantized base is dequantized first and never quantized again here: requantizing would round small updates away.
`peft_adapter` gives the adapter alone, in the layout that transformers and llama.cpp read. `quantize_base` makes the
quantized copy of a base that QLoRA trains over.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import msgspec
import numpy as np
from mlx.utils import tree_unflatten
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import dequantize_model, load_model, quantize_model, save_config, save_model

from snaketune import files
from snaketune.config.sections import BaseConfig
from snaketune.contracts.data import ModelManifest
from snaketune.engines.interface import FusedWeights, PeftAdapter
from snaketune.engines.mlx import loading
from snaketune.errors import ModelError, PackageError
from snaketune.files import StrPath, read_json, write_json
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


SHARD = 2 << 30  # bytes: bounds how much of the result is in memory at once
SIXTEEN_BIT = {"float16": mx.float16, "bfloat16": mx.bfloat16}
EXPERT_STACK = ".switch_mlp."
MIXTRAL_NAMES = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def fuse(
    base: StrPath, adapter: StrPath, target: StrPath, *, dtype: str = "auto", drop_prefix: str = "", shard: int = SHARD
) -> FusedWeights:
    """Write the weights of `base` with the adapter folder merged in as safetensors into the folder `target`.

    dtype `auto` (and `float32`) keeps a 16-bit base's own format and makes a 32-bit one float16. The weights are read
    lazily and written in shards of at most `shard` bytes, so memory holds one shard, not the model. drop_prefix: is
    left out of the tensors' names.
    """
    model, own = _lazy(base)
    kind = dtype if dtype in SIXTEEN_BIT else own
    try:
        model.set_dtype(mx.float32)
        model = load_adapters(model, str(adapter))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the adapter does not fit its base ({str(error).splitlines()[0]})",
            where=str(adapter),
            fix="Run snakemake again; the adapter must come from this very base",
        ) from error
    merged = [(name, module.fuse(dequantize=True)) for name, module in model.named_modules() if hasattr(module, "fuse")]
    model.update_modules(tree_unflatten(merged))
    model = dequantize_model(model)
    whole = unstack_experts(loading.flatten(model.parameters()))
    weights = {name.removeprefix(drop_prefix): value.astype(SIXTEEN_BIT[kind]) for name, value in whole.items()}
    del model, merged, whole
    count = sum(value.size for value in weights.values())
    return FusedWeights(dtype=kind, files=_save(weights, Path(target), shard), parameters=count)


def _lazy(base: StrPath) -> tuple[nn.Module, str]:
    """The base with weights still on disk, and the 16-bit format that suits it."""
    try:
        model, _ = load_model(Path(base), lazy=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"the base cannot be loaded ({str(error).splitlines()[0]})", where=str(base), fix="Fetch it again"
        ) from error
    sizes: dict[Any, int] = {}
    for value in loading.flatten(model.parameters()).values():
        sizes[value.dtype] = sizes.get(value.dtype, 0) + value.size
    bfloat = sizes.get(mx.bfloat16, 0) > sizes.get(mx.float16, 0)
    return model, "bfloat16" if bfloat else "float16"


def _save(weights: dict[str, mx.array], target: Path, shard: int) -> list[str]:
    """Write the arrays, evaluating and dropping one shard after the other; returns the files' names."""
    groups = list(_groups(weights, shard))
    index: dict[str, str] = {}
    total = sum(value.nbytes for value in weights.values())
    names = []
    target.mkdir(parents=True, exist_ok=True)
    for number, group in enumerate(groups, 1):
        name = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        arrays = {key: weights.pop(key) for key in group}
        if not all(mx.all(mx.isfinite(value)).item() for value in arrays.values()):
            raise PackageError(
                "the merged weights are not finite in 16 bits",
                where=str(target),
                why="A value is beyond what the number format holds, or the adapter itself is broken",
                fix="Set model.dtype: bfloat16, whose range is that of 32 bits",
            )
        mx.save_safetensors(str(target / name), arrays, metadata={"format": "mlx"})
        index |= dict.fromkeys(group, name)
        names.append(name)
        del arrays
    if len(groups) > 1:
        write_json(
            target / "model.safetensors.index.json",
            {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))},
        )
        names.append("model.safetensors.index.json")
    return names


def _groups(weights: dict[str, mx.array], shard: int) -> Iterator[list[str]]:
    """The names in groups of at most `shard` bytes."""
    group: list[str] = []
    size = 0
    for name in sorted(weights):
        if group and size + weights[name].nbytes > shard:
            yield group
            group, size = [], 0
        group.append(name)
        size += weights[name].nbytes
    if group:
        yield group


def unstack_experts(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Cut every stack of experts (experts, outputs, inputs) into one matrix (outputs, inputs) for each expert.

    Other programs have a name for each expert, where mlx-lm has a stack.
    """
    found: dict[str, mx.array] = {}
    for name, value in weights.items():
        block, stacked, part = name.partition(EXPERT_STACK)
        if not stacked:
            found[name] = value
            continue
        layer, _, kind = part.rpartition(".")
        layer = MIXTRAL_NAMES[layer] if block.endswith("block_sparse_moe") else layer
        found |= {f"{block}.experts.{number}.{layer}.{kind}": value[number] for number in range(value.shape[0])}
    return found


def peft_adapter(adapter: StrPath) -> PeftAdapter:
    """An adapter folder as tensors by PEFT's names and an adapter_config.json.

    mlx-lm holds A as (input, rank) and multiplies by `scale`; PEFT holds it as (rank, input) and multiplies by
    lora_alpha / r. Raises PackageError for an adapter that PEFT's LoRA cannot express.
    """
    folder = Path(adapter)
    config = read_json(folder / "adapter_config.json")
    kind = config.get("fine_tune_type", "lora")
    if kind != "lora":
        raise PackageError(
            f"a {kind} fine-tune cannot be written as a LoRA adapter",
            where=str(folder),
            fix="Use the fused model or its GGUF, which hold all of it",
        )
    settings = config["lora_parameters"]
    found: dict[str, np.ndarray] = {}
    for name, value in sorted(loading.load_safetensors(folder / "adapters.safetensors").items()):
        layer, _, part = name.rpartition(".")
        if part not in ("lora_a", "lora_b") or value.ndim != 2:
            raise PackageError(
                f"{name} cannot be written as a LoRA adapter: it belongs to a mixture of experts or another method",
                where=str(folder),
                fix="Use the fused model or its GGUF, which hold all of it",
            )
        letter = part[-1].upper()
        found[f"base_model.model.{layer}.lora_{letter}.weight"] = np.array(value.astype(mx.float32).T, order="C")
    modules = sorted({name.split(".")[-3] for name in found})
    peft_config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": settings["rank"],
        "lora_alpha": settings["scale"] * settings["rank"],
        "lora_dropout": settings.get("dropout", 0.0),
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "base_model_name_or_path": None,
    }
    return PeftAdapter(found, peft_config)
