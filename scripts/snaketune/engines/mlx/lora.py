"""What is trained: LoRA or DoRA matrices on chosen layers, or the model's own weights; saved in mlx-lm's format."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from snaketune import files
from snaketune.config.schema import did_you_mean
from snaketune.engines.mlx import tensors
from snaketune.errors import ConfigError

LINEAR = (nn.Linear, nn.QuantizedLinear, SwitchLinear, QuantizedSwitchLinear)
QUANTIZED = (nn.QuantizedLinear, nn.QuantizedEmbedding, QuantizedSwitchLinear)


def scale(train: dict[str, Any]) -> float:
    """What mlx-lm multiplies the adapter's product by: alpha / rank, or alpha / sqrt(rank) for rsLoRA."""
    return train["alpha"] / (math.sqrt(train["rank"]) if train["rslora"] else train["rank"])


def attach(model: nn.Module, train: dict[str, Any], seed: int) -> dict[str, Any]:
    """Freeze the model but for what `train` says, and return the adapter_config.json that `load_adapters` needs.

    train: the configuration's section. New matrices are drawn from `seed`.
    """
    layers = train["num_layers"] or -1
    if train["method"] == "full":
        _unfreeze(model, layers)
        return {"fine_tune_type": "full", "num_layers": layers, "lora_parameters": {}}
    parameters = {
        "rank": train["rank"],
        "scale": scale(train),
        "dropout": train["dropout"],
        "keys": keys(model, train["target_modules"]),
    }
    model.freeze()
    mx.random.seed(seed)
    linear_to_lora_layers(model, layers, parameters, use_dora=train["method"] == "dora")
    return {"fine_tune_type": train["method"], "num_layers": layers, "lora_parameters": parameters}


def _unfreeze(model: nn.Module, layers: int) -> None:
    for name, module in model.named_modules():
        if isinstance(module, QUANTIZED):
            raise ConfigError(
                f"full training needs a base that is not quantized, and {name} is",
                where="train.method",
                fix="Use lora or dora, or a 16-bit base",
            )
    if layers == -1:
        model.unfreeze()
    else:
        model.freeze()
        for layer in model.layers[-layers:]:
            layer.unfreeze()


def keys(model: nn.Module, targets: str | list[str]) -> list[str]:
    """The paths inside a block (`self_attn.q_proj`) of its linear layers that get an adapter, sorted.

    targets: "all-linear", or short names (`q_proj`) or paths; an unknown one is a ConfigError with the known ones.
    """
    known = sorted({path for layer in model.layers for path, part in layer.named_modules() if isinstance(part, LINEAR)})
    if targets == "all-linear":
        return known
    chosen: set[str] = set()
    for target in targets:
        found = [path for path in known if path == target or path.rsplit(".", 1)[-1] == target]
        if not found:
            names = sorted({path.rsplit(".", 1)[-1] for path in known})
            raise ConfigError(
                f'this model has no linear layer "{target}"{did_you_mean(target, names)}',
                where="train.target_modules",
                fix=f"Choose from {', '.join(names)}, or write all-linear",
            )
        chosen.update(found)
    return sorted(chosen)


def save(weights: tensors.Weights, config: dict[str, Any], adapter: Path, adapter_config: Path) -> None:
    """Write an adapter as mlx-lm does: weights by their names in the model, and the settings that rebuild it."""
    with files.replacing(adapter) as temporary:
        tensors.write(temporary, weights)
    files.write_json(adapter_config, config)


def sizes(model: nn.Module) -> tuple[int, int]:
    """Trainable and total parameters; those of a quantized layer are counted as the numbers they stand for."""
    trainable = sum(array.size for array in tensors.flat(model.trainable_parameters()).values())
    total = 0
    for _, module in model.named_modules():
        for name, array in module.items():
            if isinstance(array, mx.array):
                packed = isinstance(module, QUANTIZED)
                if packed and name in ("scales", "biases"):
                    continue
                total += array.size * 32 // module.bits if packed and name == "weight" else array.size
    return trainable, total
