"""The memory of an optimizer step, which decides whether a full fine-tune fits."""

from __future__ import annotations

import snaketune.engines.mlx  # noqa: F401  a fast BLAS before MLX

import mlx.core as mx  # isort: skip

from snaketune.config import sections
from snaketune.engines.mlx.capabilities import FLAT_CHUNK
from snaketune.engines.mlx.optimizer import FlatParameters, Optimizer


def test_step_holds_few_temporary_copies_of_the_weights():
    weights = {f"layer.{number}": mx.ones((FLAT_CHUNK // 1024, 1024)) for number in range(16)}
    size = sum(array.nbytes for array in weights.values())
    flat = FlatParameters(weights, "adamw").flatten(weights)
    del weights
    optimizer = Optimizer(sections.section(sections.TrainConfig), flat)
    gradients = {name: array * 0.5 for name, array in flat.items()}
    mx.eval(flat, optimizer.state, gradients)
    mx.reset_peak_memory()
    flat, norm, is_finite = optimizer.step(flat, gradients, mx.array(1.0), 1e-4)
    mx.eval(flat, optimizer.state, norm, is_finite)
    assert mx.get_peak_memory() < 9 * size  # all at once, it would be fifteen


def test_flat_parameters_unflatten_to_the_same_weights():
    weights = {"a.w": mx.arange(12.0).reshape(3, 4), "b.w": mx.arange(FLAT_CHUNK + 5.0)[None], "c.bias": mx.arange(3.0)}
    flat_params = FlatParameters(weights, "adamw")
    unflattened = flat_params.unflatten(flat_params.flatten(weights))
    assert set(unflattened) == set(weights)
    assert all(mx.array_equal(unflattened[name], weights[name]).item() for name in weights)
