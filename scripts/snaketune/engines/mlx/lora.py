"""What is trained: LoRA and DoRA adapters, the model's own weights, or a soft prompt; its files in mlx-lm's format."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import msgspec
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from snaketune.config.sections import TrainConfig
from snaketune.contracts.train import AdapterConfig
from snaketune.engines.mlx import loading, prompt_embedding
from snaketune.errors import ConfigError
from snaketune.train import adapter_init
from snaketune.train.checkpoints import ParameterCounts

LINEAR = (nn.Linear, nn.QuantizedLinear, SwitchLinear, QuantizedSwitchLinear)
QUANTIZED = (nn.QuantizedLinear, nn.QuantizedEmbedding, QuantizedSwitchLinear)


def add_adapter(model: nn.Module, config: TrainConfig, seed: int, virtual_ids: range = range(0)) -> AdapterConfig:
    """Freeze the model but for what is trained, and return the adapter_config.json that `load_adapters` needs.

    New matrices are drawn from `seed`. virtual_ids: of the tokens of prompt tuning, whose vectors begin as those of
    words.
    """
    if config.method == "prompt":
        model.freeze()
        described = AdapterConfig.of_prompt(virtual_ids)
        assert described.prompt_parameters is not None
        layer = prompt_embedding.insert(model, described.prompt_parameters)
        words = loading.dequantized_weight(layer.embedding)
        drawn = adapter_init.draw_words(words.shape[0], seed, virtual_ids)
        layer.prompt = words[mx.array(drawn)].astype(mx.float32)
        return described
    if config.method == "full":
        described = AdapterConfig.of_layers(config, None)
        _unfreeze(model, described.num_layers)
        return described
    described = AdapterConfig.of_layers(config, resolve_target_modules(model, config.target_modules))
    model.freeze()
    parameters = msgspec.to_builtins(described.lora_parameters)
    linear_to_lora_layers(model, described.num_layers, parameters, use_dora=config.method == "dora")
    for number, block in enumerate(model.layers):
        for path, part in block.named_modules():
            if "lora_a" in part:
                part.lora_a = mx.array(adapter_init.draw_lora_a(part.lora_a.shape, seed, number, path))
    return described


def _unfreeze(model: nn.Module, num_layers: int) -> None:
    for name, module in model.named_modules():
        if isinstance(module, QUANTIZED):
            raise ConfigError(
                f"full training needs a base that is not quantized, and {name} is",
                where="train.method",
                fix="Use lora or dora, or a 16-bit base",
            )
    if num_layers == -1:
        model.unfreeze()
    else:
        model.freeze()
        for layer in model.layers[-num_layers:]:
            layer.unfreeze()


def resolve_target_modules(model: nn.Module, target_modules: str | list[str]) -> list[str]:
    """The paths inside a block of its linear layers that get an adapter; see `adapter_init.chosen_targets`."""
    known = sorted({path for layer in model.layers for path, part in layer.named_modules() if isinstance(part, LINEAR)})
    return adapter_init.chosen_targets(known, target_modules)


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Trainable and total parameters; those of a quantized layer are counted as the numbers they stand for."""
    trainable = sum(array.size for array in loading.flatten(model.trainable_parameters()).values())
    total = 0
    for _, module in model.named_modules():
        for name, array in module.items():
            if isinstance(array, mx.array):
                quantized = isinstance(module, QUANTIZED)
                if quantized and name in ("scales", "biases"):
                    continue
                total += array.size * 32 // module.bits if quantized and name == "weight" else array.size
    return ParameterCounts(trainable, total)
