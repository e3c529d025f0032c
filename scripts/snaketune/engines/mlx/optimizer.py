"""One optimizer step: clip, decay, step; skipped as a whole where a gradient is not finite.

The trained weights are kept as a few long vectors ("flat parameters"), one for each kind of weight, which makes a step
some twenty operations instead of a dozen for each of hundreds of small matrices. Optimizers that need the shape of a
matrix get the weights one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx
import mlx.optimizers

from snaketune.config.sections import TrainConfig
from snaketune.engines.mlx import loading
from snaketune.engines.mlx.capabilities import FLAT_CHUNK
from snaketune.engines.mlx.loading import Tensors

MLXOptimizer = mlx.optimizers.Optimizer
ELEMENTWISE: dict[str, Callable[[float], MLXOptimizer]] = {
    "adamw": lambda rate: mlx.optimizers.Adam(rate, bias_correction=True),
    "adam": lambda rate: mlx.optimizers.Adam(rate, bias_correction=True),
    "adamax": mlx.optimizers.Adamax,
    "lion": lambda rate: mlx.optimizers.Lion(rate, weight_decay=0.0),
    "sgd": lambda rate: mlx.optimizers.SGD(rate, momentum=0.9),
    "rmsprop": mlx.optimizers.RMSprop,
    "adagrad": mlx.optimizers.Adagrad,
    "adadelta": mlx.optimizers.AdaDelta,
}
BY_MATRIX: dict[str, Callable[[float], MLXOptimizer]] = {
    "adafactor": lambda rate: mlx.optimizers.Adafactor(rate, scale_parameter=False, relative_step=False),
    "muon": lambda rate: mlx.optimizers.Muon(rate, weight_decay=0.0),
}
NAMES = (*ELEMENTWISE, *BY_MATRIX)
NO_WEIGHT_DECAY = ("adam", "sgd")  # adamw is adam with decoupled weight decay; the others take it as adamw does
MAX_FLATTENED = 1 << 27  # above so many weights a flat copy costs more memory than it saves time


class FlatParameters:
    """How named weights lie in flat vectors. Names of vectors begin with `matrix` where weight decay applies."""

    def __init__(self, weights: Tensors, optimizer: str) -> None:
        self._per_tensor = optimizer in BY_MATRIX or sum(array.size for array in weights.values()) > MAX_FLATTENED
        self._members: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
        filled: dict[str, int] = {}
        for name in sorted(weights):
            array = weights[name]
            kind = "matrix" if array.ndim >= 2 else "vector"
            if self._per_tensor:
                vector = f"{kind} {name.replace('.', '/')}"
            else:
                vector = f"{kind} {str(array.dtype).removeprefix('mlx.core.')}"
                filled[vector] = filled.get(vector, 0) + array.size
                vector = f"{vector} {filled[vector] // FLAT_CHUNK}"
            self._members.setdefault(vector, []).append((name, array.shape))

    def flatten(self, weights: Tensors) -> Tensors:
        """Weights by name as flat vectors."""
        if self._per_tensor:
            return {vector: weights[members[0][0]] for vector, members in self._members.items()}
        return {
            vector: mx.concatenate([weights[name].reshape(-1) for name, _ in members])
            for vector, members in self._members.items()
        }

    def unflatten(self, flat: Tensors) -> Tensors:
        """Flat vectors as weights by name, in their own shapes."""
        weights: Tensors = {}
        for vector, members in self._members.items():
            if self._per_tensor:
                weights[members[0][0]] = flat[vector]
                continue
            ends, end = [], 0
            for _, shape in members:
                end += math.prod(shape)
                ends.append(end)
            parts = mx.split(flat[vector], ends[:-1]) if len(ends) > 1 else [flat[vector]]
            weights |= {name: part.reshape(shape) for (name, shape), part in zip(members, parts, strict=True)}
        return weights


class OptimizerStep(NamedTuple):
    """The result of an optimizer step, all of it lazy: flat weights, the gradient's norm before clipping, and whether
    the step was made (a bool scalar)."""

    weights: Tensors
    grad_norm: mx.array
    is_finite: mx.array


class Optimizer:
    """MLX's optimizer of a given name, with clipping by global norm and weight decay on matrices only."""

    def __init__(self, config: TrainConfig, flat: Tensors) -> None:
        self.name, self.max_grad_norm = config.optimizer, config.max_grad_norm
        self.weight_decay = 0.0 if self.name in NO_WEIGHT_DECAY else config.weight_decay
        self.inner = (ELEMENTWISE | BY_MATRIX)[self.name](config.learning_rate)
        self.inner.init(flat)

    def step(self, flat: Tensors, gradients: Tensors, loss: mx.array, learning_rate: float) -> OptimizerStep:
        """Make a step. Where the loss or the norm is not finite, weights and optimizer state stay as they are."""
        squares = [mx.square(gradient.astype(mx.float32)).sum() for gradient in gradients.values()]
        norm = mx.sqrt(mx.sum(mx.stack(squares)))
        is_finite = mx.isfinite(norm) & mx.isfinite(loss)
        if self.max_grad_norm is not None:
            factor = mx.minimum(1.0, self.max_grad_norm / (norm + 1e-6))
            gradients = {name: gradient * factor.astype(gradient.dtype) for name, gradient in gradients.items()}
        self.inner.learning_rate = learning_rate
        before = self.state
        decayed = {
            name: weight * (1 - learning_rate * self.weight_decay)
            if self.weight_decay and name.startswith("matrix")
            else weight
            for name, weight in flat.items()
        }
        stepped = self.inner.apply_gradients(gradients, decayed)
        after = self.state
        self.load_state(flat, {name: mx.where(is_finite, after[name], old) for name, old in before.items()})
        weights = {name: mx.where(is_finite, stepped[name], weight) for name, weight in flat.items()}
        return OptimizerStep(weights, norm, is_finite)

    @property
    def state(self) -> Tensors:
        """MLX's optimizer state by dotted names."""
        return loading.flatten(self.inner.state)

    def load_state(self, flat: Tensors, state: Tensors) -> None:
        """Continue from a saved state of these flat weights."""
        self.inner.state = loading.unflatten(state)
        self.inner.init(flat)
