"""The merge of an adapter computed a second time, by other means, to check the fused file against.

A fused bfloat16 model differs from its adapter by the rounding alone, which moves log-probabilities by 0.2 and hides
a small mistake. Against a merge that was rounded in the same way by other code, only a mistake is left.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.models.switch_layers import SwitchLinear

from snaketune.engines.interface import LoadOptions
from snaketune.engines.mlx import language_model, loading
from snaketune.engines.mlx.loading import dequantized_weight
from snaketune.engines.mlx.streamed_model import StreamedModel
from snaketune.files import StrPath


def load(path: StrPath, options: LoadOptions, dtype: str) -> language_model.MLXModel | StreamedModel:
    """Load a model folder with the adapter of `options` merged and all weights rounded to `dtype`, in float32."""
    loaded = language_model.load(path, options)
    merge(loaded.model, dtype)
    return loaded


def merge(model: nn.Module, dtype: str) -> None:
    """Replace the adapter layers of a float32 model by plain ones whose weights are rounded to a 16-bit `dtype`.

    LoRA and DoRA, of a mixture's experts LoRA alone. All other weights are rounded as well. Nothing is computed before
    it is needed, so a model on the disk stays there.
    """
    replaced: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inner = module.get("linear", module.get("embedding"))
        if inner is not None and {"lora_a", "lora_b"} <= set(module):
            weight = dequantized_weight(inner) + module.scale * _update(module)
            if "m" in module:  # DoRA: the length of each row is a parameter of its own
                weight = weight * (module.m / mx.sqrt((weight * weight).sum(1)))[:, None]
            replaced[name] = _plain(inner, weight)
        elif "scales" in module and not name.endswith((".linear", ".embedding")):
            replaced[name] = _plain(module, dequantized_weight(module))
    model.update_modules(tree_unflatten(list(replaced.items())))
    rounded = [(name, rounded_to(value, dtype)) for name, value in loading.flatten(model.parameters()).items()]
    model.update(tree_unflatten(rounded))


def _update(module: nn.Module) -> mx.array:
    """What the adapter adds to the weight, unscaled and in the weight's shape."""
    if module.lora_a.ndim == 3:  # of experts: (experts, rank, inputs) and (experts, outputs, rank)
        return mx.einsum("eor,eri->eoi", module.lora_b, module.lora_a)
    update = module.lora_a @ module.lora_b
    return update.T if "linear" in module else update


def rounded_to(values: mx.array, dtype: str) -> mx.array:
    """float32 values rounded to the nearest of a 16-bit format (ties to even), as float32 again."""
    if values.dtype != mx.float32:
        return values
    if dtype == "float16":
        return values.astype(mx.float16).astype(mx.float32)
    bits = values.view(mx.uint32)
    half = mx.array(0x7FFF, mx.uint32) + ((bits >> 16) & 1)
    return ((bits + half) & mx.array(0xFFFF0000, mx.uint32)).view(mx.float32)


def _plain(module: nn.Module, weight: mx.array) -> nn.Module:
    """A layer of the same kind without an adapter and without quantization."""
    if isinstance(module, (nn.Embedding, nn.QuantizedEmbedding)):
        plain: nn.Module = nn.Embedding(1, 1)
    else:
        biased = "bias" in module
        plain = SwitchLinear(1, 1, 1, bias=biased) if weight.ndim == 3 else nn.Linear(1, 1, bias=biased)
        if biased:
            plain.bias = module.bias
    plain.weight = weight
    return plain
