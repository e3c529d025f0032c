"""One optimizer step: clip, decay, step; skipped as a whole where a gradient is not finite.

Trained weights and their gradients lie in a few long vectors, of which the layers' parameters are views, which makes a
step some ten operations instead of a dozen for each of hundreds of small matrices. Optimizers that need the shape of a
matrix get the weights one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from snaketune.config.sections import TrainConfig

Tensors = dict[str, torch.Tensor]


class Lion(torch.optim.Optimizer):
    """Lion (Chen et al. 2023): the sign of a momentum; PyTorch has none."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, _: Any = None) -> None:  # type: ignore[override]  # it takes no closure
        for group in self.param_groups:
            first, second = group["betas"]
            for param in group["params"]:
                momentum = self.state[param].setdefault("exp_avg", torch.zeros_like(param))
                param.add_(torch.lerp(param.grad, momentum, first).sign_(), alpha=-group["lr"])
                momentum.lerp_(param.grad, 1 - second)


TorchOptimizer = Callable[..., torch.optim.Optimizer]
ELEMENTWISE: dict[str, TorchOptimizer] = {
    "adamw": torch.optim.Adam,
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "lion": Lion,
    "sgd": lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9),
    "rmsprop": torch.optim.RMSprop,
    "adagrad": lambda params, lr: torch.optim.Adagrad(params, lr=lr, eps=1e-8),
    "adadelta": torch.optim.Adadelta,
}
BY_MATRIX: dict[str, TorchOptimizer] = {
    "adafactor": torch.optim.Adafactor,
    "muon": lambda params, lr: torch.optim.Muon(params, lr=lr, weight_decay=0.0),
}
OF_VECTORS: dict[str, TorchOptimizer] = {"muon": torch.optim.Adam}  # what steps the weights that are no matrices
NAMES = (*ELEMENTWISE, *BY_MATRIX)
NO_WEIGHT_DECAY = ("adam", "sgd")  # adamw is adam with decoupled weight decay; the others take it as adamw does


class OptimizerStep(NamedTuple):
    """The gradient's norm before clipping, and whether the step was made."""

    grad_norm: torch.Tensor
    is_finite: bool


class FlatParameters:
    """Trained parameters by name, laid into flat vectors with flat gradients; names of vectors begin with `matrix`
    where weight decay applies."""

    def __init__(self, named: dict[str, nn.Parameter], optimizer: str) -> None:
        self.named = dict(sorted(named.items()))
        self.flat: dict[str, nn.Parameter] = {}
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named.items():
            kind = "matrix" if parameter.dim() >= 2 else "vector"
            key = (
                f"{kind} {name}" if optimizer in BY_MATRIX else f"{kind} {str(parameter.dtype).removeprefix('torch.')}"
            )
            groups.setdefault(key, []).append(parameter)
        for key, members in groups.items():
            if optimizer in BY_MATRIX:
                (self.flat[key],) = members
                members[0].grad = torch.zeros_like(members[0])
            else:
                self.flat[key] = _joined(members)

    def zero_gradients(self) -> None:
        for vector in self.flat.values():
            assert vector.grad is not None
            vector.grad.zero_()

    def gradients(self) -> Tensors:
        """The gradient of each vector; changing one in place changes what the next step takes."""
        return {key: vector.grad for key, vector in self.flat.items() if vector.grad is not None}


def _joined(members: list[nn.Parameter]) -> nn.Parameter:
    """Parameters as one vector of which they, and their gradients, are views."""
    vector = nn.Parameter(torch.cat([one.data.reshape(-1) for one in members]))
    vector.grad = torch.zeros_like(vector)
    start = 0
    for one in members:
        end = start + one.numel()
        shape = one.shape
        one.data = vector.data[start:end].view(shape)
        one.grad = vector.grad[start:end].view(shape)
        start = end
    return vector


class Optimizer:
    """PyTorch's optimizer of a given name, with clipping by global norm and weight decay on matrices only."""

    def __init__(self, config: TrainConfig, parameters: FlatParameters) -> None:
        self.name, self.max_grad_norm, self.parameters = config.optimizer, config.max_grad_norm, parameters
        self.weight_decay = 0.0 if self.name in NO_WEIGHT_DECAY else config.weight_decay
        self.inner: list[torch.optim.Optimizer] = []
        make = (ELEMENTWISE | BY_MATRIX)[self.name]
        for kind, of_kind in (("matrix", make), ("vector", OF_VECTORS.get(self.name, make))):
            stepped = [vector for key, vector in parameters.flat.items() if key.startswith(kind)]
            if stepped:
                self.inner.append(of_kind(stepped, lr=config.learning_rate))

    @torch.no_grad()
    def step(self, loss: torch.Tensor, learning_rate: float) -> OptimizerStep:
        """Make a step. Where the loss or the norm is not finite, weights and optimizer state stay as they are."""
        gradients = list(self.parameters.gradients().values())
        norms = [torch.linalg.vector_norm(one, dtype=torch.float32) for one in gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        is_finite = bool(torch.isfinite(norm) & torch.isfinite(loss))
        if not is_finite:
            return OptimizerStep(norm, False)
        if self.max_grad_norm is not None:
            factor = float((self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
            if factor < 1:
                for gradient in gradients:
                    gradient.mul_(factor)
        for key, vector in self.parameters.flat.items():
            if self.weight_decay and key.startswith("matrix"):
                vector.mul_(1 - learning_rate * self.weight_decay)
        for inner in self.inner:
            for group in inner.param_groups:
                group["lr"] = learning_rate
            inner.step()
        return OptimizerStep(norm, True)

    def state(self) -> Tensors:
        """The optimizer's state as tensors by `<vector> <part>`; empty before the first step."""
        return {
            f"{key} {part}": torch.as_tensor(value)
            for key, vector in self.parameters.flat.items()
            for inner in self.inner
            for part, value in inner.state.get(vector, {}).items()
        }

    def load_state(self, saved: Tensors) -> None:
        """Continue from a saved state."""
        for key, vector in self.parameters.flat.items():
            parts = {name.removeprefix(f"{key} "): one for name, one in saved.items() if name.startswith(f"{key} ")}
            for inner in self.inner:
                if parts and any(vector is one for group in inner.param_groups for one in group["params"]):
                    inner.state[vector] = parts
