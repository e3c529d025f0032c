"""What an update holds in memory, which decides whether a full fine-tune fits."""

from __future__ import annotations

import snaketune.engines.mlx  # noqa: F401  a fast BLAS before MLX

import mlx.core as mx  # isort: skip

from snaketune.config import schema
from snaketune.engines.mlx.optimizer import PACKED, Optimizer, Packing


def test_an_update_holds_few_temporary_copies_of_the_weights():
    weights = {f"layer.{number}": mx.ones((PACKED // 1024, 1024)) for number in range(16)}
    size = sum(array.nbytes for array in weights.values())
    packing = Packing(weights, "adamw")
    packed = packing.pack(weights)
    del weights
    optimizer = Optimizer(schema.complete({"run": "a"})["train"], packed)
    gradients = {name: array * 0.5 for name, array in packed.items()}
    mx.eval(packed, optimizer.state, gradients)
    mx.reset_peak_memory()
    packed, norm, sound = optimizer.step(packed, gradients, mx.array(1.0), 1e-4)
    mx.eval(packed, optimizer.state, norm, sound)
    assert mx.get_peak_memory() < 9 * size  # all at once, it would be fifteen


def test_packed_weights_come_back_as_they_were():
    weights = {"a.w": mx.arange(12.0).reshape(3, 4), "b.w": mx.arange(PACKED + 5.0)[None], "c.bias": mx.arange(3.0)}
    packing = Packing(weights, "adamw")
    back = packing.unpack(packing.pack(weights))
    assert set(back) == set(weights)
    assert all(mx.array_equal(back[name], weights[name]).item() for name in weights)
