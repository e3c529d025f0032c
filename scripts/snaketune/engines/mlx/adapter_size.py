"""The size of an adapter's update, relative to the weights that it changes."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn


def relative_update_norm(model: nn.Module) -> float | None:
    """Frobenius norm of all low-rank updates over that of the weights they are added to; None without an adapter.

    A useful adapter stays below 1. The norm of a product comes from the two r x r Gram matrices, so no update is
    ever materialized.
    """
    updates = weights = 0.0
    for _, module in model.named_modules():
        inner = getattr(module, "linear", None)
        if not hasattr(module, "lora_a") or inner is None:
            continue
        first, second = module.lora_a.astype(mx.float32), module.lora_b.astype(mx.float32)
        if first.ndim == 3:  # a mixture's experts: (experts, r, inputs) and (experts, outputs, r)
            grams = (first @ first.swapaxes(-1, -2)) * (second.swapaxes(-1, -2) @ second)
        else:  # (inputs, r) and (r, outputs)
            grams = (first.T @ first) * (second @ second.T)
        updates += float(module.scale) ** 2 * float(grams.sum().item())
        weights += float(mx.square(_plain(inner)).sum().item())  # type: ignore[arg-type]
    return math.sqrt(updates / weights) if weights else None


def _plain(layer: Any) -> mx.array:
    """A layer's weights as float32, whether they are quantized or not."""
    if "scales" in layer:
        biases = layer.get("biases")
        layer = {
            "weight": mx.dequantize(
                layer.weight, layer.scales, biases, group_size=layer.group_size, bits=layer.bits, mode=layer.mode
            )
        }
    return layer["weight"].astype(mx.float32)
