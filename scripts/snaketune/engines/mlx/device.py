"""The device that MLX computes on, as plain values."""

from __future__ import annotations

from typing import Any

import mlx.core as mx


def describe() -> dict[str, Any]:
    """{"device": metal, cuda or cpu; "name"; and in bytes, where MLX knows them, "memory" and "working_set"}."""
    if mx.default_device() == mx.cpu:
        return {"device": "cpu", "name": mx.device_info().get("device_name")}
    info = mx.device_info()
    if mx.metal.is_available():
        working_set = info.get("max_recommended_working_set_size")
        return {
            "device": "metal",
            "name": info.get("device_name"),
            "memory": info.get("memory_size"),
            "working_set": working_set,
        }
    return {"device": "cuda", "name": info.get("device_name"), "memory": info.get("total_memory")}
