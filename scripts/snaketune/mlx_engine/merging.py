"""The merge of an adapter computed a second time, in numpy, to check the fused file against.

A fused bfloat16 model differs from its adapter by the rounding alone, which moves log-probabilities by 0.2 and hides
a small mistake. Against a merge that was rounded in the same way by other code, only a mistake is left.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from snaketune.mlx_engine.fusing import parameters


def merge(model: nn.Module, dtype: str) -> None:
    """Replace the adapter layers of a float32 model by plain ones whose weights are rounded to a 16-bit `dtype`.

    Plain LoRA only; other kinds of adapter layers are left as they are. All other weights are rounded as well.
    """
    replaced = []
    for name, module in model.named_modules():
        if {"lora_a", "lora_b"} <= set(module) and "m" not in module and ("linear" in module or "embedding" in module):
            inner = module["linear"] if "linear" in module else module["embedding"]
            first, second = np.array(module.lora_a), np.array(module.lora_b)
            if first.ndim == 2:
                update = (first @ second).T if "linear" in module else first @ second
                replaced.append((name, _plain(inner, _weight(inner) + np.float32(module.scale) * update)))
        elif isinstance(module, (nn.QuantizedLinear, nn.QuantizedEmbedding)):
            replaced.append((name, _plain(module, _weight(module))))
    inner_ones = {f"{name}.{inner}" for name, _ in replaced for inner in ("linear", "embedding")}
    model.update_modules(tree_unflatten([pair for pair in replaced if pair[0] not in inner_ones]))
    rounded = [(name, mx.array(rounded_to(np.array(value), dtype))) for name, value in parameters(model).items()]
    model.update(tree_unflatten(rounded))


def rounded_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values rounded to the nearest of a 16-bit format (ties to even), as float32 again."""
    if values.dtype != np.float32:
        return values
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def _weight(module: nn.Module) -> np.ndarray:
    if "scales" not in module:
        return np.array(module.weight)
    biases = module.get("biases")
    plain = mx.dequantize(module.weight, module.scales, biases, module.group_size, module.bits, module.mode)
    return np.array(plain.astype(mx.float32))


def _plain(module: nn.Module, weight: np.ndarray) -> nn.Module:
    """A layer of the same kind without an adapter and without quantization."""
    if isinstance(module, (nn.Embedding, nn.QuantizedEmbedding)):
        plain: nn.Module = nn.Embedding(1, 1)
    else:
        plain = nn.Linear(1, 1, bias="bias" in module)
        if "bias" in module:
            plain.bias = module.bias
    plain.weight = mx.array(weight)
    return plain
