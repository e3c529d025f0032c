"""An mlx-lm LoRA adapter in PEFT's layout: what transformers and llama.cpp read."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np

from snaketune.engines.interface import PeftAdapter
from snaketune.errors import PackageError
from snaketune.files import StrPath, read_json


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
    tensors: dict[str, np.ndarray] = {}
    for name, value in sorted(_arrays(folder / "adapters.safetensors").items()):
        layer, _, part = name.rpartition(".")
        if part not in ("lora_a", "lora_b") or value.ndim != 2:
            raise PackageError(
                f"{name} cannot be written as a LoRA adapter: it belongs to a mixture of experts or another method",
                where=str(folder),
                fix="Use the fused model or its GGUF, which hold all of it",
            )
        letter = part[-1].upper()
        tensors[f"base_model.model.{layer}.lora_{letter}.weight"] = np.array(value.astype(mx.float32).T, order="C")
    modules = sorted({name.split(".")[-3] for name in tensors})
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
    return PeftAdapter(tensors, peft_config)


def _arrays(path: Path) -> dict[str, mx.array]:
    loaded = mx.load(str(path))
    assert isinstance(loaded, dict)
    return loaded
