"""One update of the trained weights: clip, decay, step; skipped as a whole where a gradient is not finite.

The trained weights are kept as a few long vectors ("packed"), one for each kind of weight, which makes an update some
twenty operations instead of a dozen for each of hundreds of small matrices. Optimizers that look at a matrix as a
matrix get them one by one.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.optimizers

from snaketune.engines.mlx import tensors
from snaketune.engines.mlx.tensors import Weights

ELEMENTWISE = {
    "adamw": lambda rate: mlx.optimizers.Adam(rate, bias_correction=True),
    "adam": lambda rate: mlx.optimizers.Adam(rate, bias_correction=True),
    "adamax": mlx.optimizers.Adamax,
    "lion": lambda rate: mlx.optimizers.Lion(rate, weight_decay=0.0),
    "sgd": lambda rate: mlx.optimizers.SGD(rate, momentum=0.9),
    "rmsprop": mlx.optimizers.RMSprop,
    "adagrad": mlx.optimizers.Adagrad,
    "adadelta": mlx.optimizers.AdaDelta,
}
MATRICES = {
    "adafactor": lambda rate: mlx.optimizers.Adafactor(rate, scale_parameter=False, relative_step=False),
    "muon": lambda rate: mlx.optimizers.Muon(rate, weight_decay=0.0),
}
NAMES = (*ELEMENTWISE, *MATRICES)
UNDECAYED = ("adam", "sgd")  # adamw is adam with decoupled weight decay; the others take it as adamw does
PACKED = 1 << 19  # weights in one vector: an update holds ten temporary copies of a vector, rather than of all
LARGE = 1 << 27  # above so many weights a packed copy costs more memory than it saves time


class Packing:
    """How named weights lie in packed vectors. Names of vectors begin with `matrix` where weight decay applies."""

    def __init__(self, weights: Weights, optimizer: str) -> None:
        apart = optimizer in MATRICES or sum(array.size for array in weights.values()) > LARGE
        self._places: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
        filled: dict[str, int] = {}
        for name in sorted(weights):
            array = weights[name]
            kind = "matrix" if array.ndim >= 2 else "vector"
            if apart:
                where = f"{kind} {name.replace('.', '/')}"
            else:
                where = f"{kind} {str(array.dtype).removeprefix('mlx.core.')}"
                filled[where] = filled.get(where, 0) + array.size
                where = f"{where} {filled[where] // PACKED}"
            self._places.setdefault(where, []).append((name, array.shape))
        self._apart = apart

    def pack(self, weights: Weights) -> Weights:
        if self._apart:
            return {where: weights[places[0][0]] for where, places in self._places.items()}
        return {
            where: mx.concatenate([weights[name].reshape(-1) for name, _ in places])
            for where, places in self._places.items()
        }

    def unpack(self, packed: Weights) -> Weights:
        weights: Weights = {}
        for where, places in self._places.items():
            if self._apart:
                weights[places[0][0]] = packed[where]
                continue
            ends, end = [], 0
            for _, shape in places:
                size = 1
                for side in shape:
                    size *= side
                end += size
                ends.append(end)
            parts = mx.split(packed[where], ends[:-1]) if len(ends) > 1 else [packed[where]]
            weights |= {name: part.reshape(shape) for (name, shape), part in zip(places, parts, strict=True)}
        return weights


class Optimizer:
    """MLX's optimizer of this name, with clipping by global norm and weight decay on matrices only."""

    def __init__(self, train: dict[str, Any], packed: Weights) -> None:
        self.name, self.clip = train["optimizer"], train["max_grad_norm"]
        self.decay = 0.0 if self.name in UNDECAYED else train["weight_decay"]
        self.inner = (ELEMENTWISE | MATRICES)[self.name](train["learning_rate"])
        self.inner.init(packed)

    def step(
        self, packed: Weights, gradients: Weights, loss: mx.array, rate: float
    ) -> tuple[Weights, mx.array, mx.array]:
        """(new weights, the gradient's norm before clipping, whether the update was made), all still to be computed.

        Where the loss or the norm is not finite, weights and optimizer state stay as they are.
        """
        squares = [mx.square(g.astype(mx.float32)).sum() for g in gradients.values()]
        norm = mx.sqrt(mx.sum(mx.stack(squares)))
        sound = mx.isfinite(norm) & mx.isfinite(loss)
        if self.clip is not None:
            factor = mx.minimum(1.0, self.clip / (norm + 1e-6))
            gradients = {name: g * factor.astype(g.dtype) for name, g in gradients.items()}
        self.inner.learning_rate = rate
        before = self.state
        decayed = {
            name: w * (1 - rate * self.decay) if self.decay and name.startswith("matrix") else w
            for name, w in packed.items()
        }
        stepped = self.inner.apply_gradients(gradients, decayed)
        after = self.state
        self.state = {name: mx.where(sound, after[name], old) for name, old in before.items()}
        return {name: mx.where(sound, stepped[name], packed[name]) for name in packed}, norm, sound

    @property
    def state(self) -> Weights:
        return tensors.flat(self.inner.state)

    @state.setter
    def state(self, state: Weights) -> None:
        self.inner.state = tensors.nested(state)
        self.inner._initialized = True
