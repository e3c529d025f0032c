"""The loss at trained positions, with the logits of no other position ever made.

A language model is a backbone and a head; mlx-lm writes them as one `__call__` that hands the backbone's hidden states
on. Here the backbone runs on all positions and the model's own `__call__`, with the backbone's answer put in, on the
trained ones. So softcaps and logit scales are the model's, whatever they are. The head runs in slices, and the
gradient at the hidden states is taken at once, so that one slice's logits are all that memory holds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from snaketune.engines.mlx import tensors
from snaketune.engines.mlx.sequence_packing import Isolated
from snaketune.train.batches import Batch

SLICE_BYTES = 64 << 20  # of fp32 logits
EXACT = (mx.float32, mx.uint32)  # and the packed words of quantized weights
BACKBONES = ("model", "backbone", "transformer")
PACKED_TOLERANCE = 1e-4  # the same between packed rows and rows alone, in float32
TOLERANCE = 2e-3  # relative difference between the sliced loss and the plain one; bfloat16 rounds at 4e-3 a value


class Loss:
    """Sum of the negative log-likelihoods (nats) of a batch's targets under a model.

    `check` decides once, on a few tokens, whether the model's head can be taken apart.
    """

    def __init__(self, model: nn.Module) -> None:
        self.slice = 0  # positions, known once the vocabulary is
        self.model = model
        self.owner, self.backbone = _split(model)
        in_blocks = {id(one) for layer in model.layers for one in tensors.flat(layer.trainable_parameters()).values()}
        trained = tensors.flat(model.trainable_parameters()).values()
        self.head_is_trained = any(id(one) not in in_blocks for one in trained)

    def __call__(self, batch: Batch) -> tuple[mx.array, mx.array]:
        """(what to differentiate, the loss). They differ where the gradient at the hidden states is taken at once:
        then the first is a number without a meaning of its own that has the loss's gradient."""
        inputs, places, targets = (mx.array(one) for one in (batch.inputs, batch.places, batch.targets))
        how = self._apart(batch)
        if self.owner is None:
            logits = self.model(inputs, **how)
            loss = cross_entropy(logits.reshape(-1, logits.shape[-1])[places], targets).sum()
            return loss, loss
        hidden = getattr(self.owner, self.backbone)(inputs, **how)
        hidden = hidden.reshape(-1, hidden.shape[-1])[places]
        self.slice = self.slice or self._slice(hidden)
        if self.head_is_trained:
            loss = self._head_loss(hidden, targets)
            return loss, loss
        surrogate, loss = mx.array(0.0), mx.array(0.0)
        for start in range(0, len(targets), self.slice):
            part, sought = hidden[start : start + self.slice], targets[start : start + self.slice]
            value, slope = mx.value_and_grad(self._head_loss)(mx.stop_gradient(part), sought)
            loss = loss + value
            surrogate = surrogate + (part * mx.stop_gradient(slope)).astype(mx.float32).sum()
        return surrogate, mx.stop_gradient(loss)

    def value(self, batch: Batch) -> mx.array:
        """The loss alone; nothing of a gradient is computed."""
        return self(batch)[1]

    def check(self, batch: Batch) -> None:
        """Compare with the plain way on the first row of a batch; where they differ, go the plain way from now on."""
        if self.owner is None:
            _warn("its parts have other names")
            return
        width = min(batch.inputs.shape[1], 64)
        few = Batch(batch.inputs[:1, :width], np.arange(width, dtype=np.int32), batch.inputs[0, :width], width)
        try:
            ours = float(self.value(few))
        except (AttributeError, TypeError, ValueError) as error:
            ours, reason = float("nan"), str(error)
        else:
            reason = "the losses differ"
        owner, self.owner = self.owner, None
        plain = float(self.value(few))
        if abs(ours - plain) <= TOLERANCE * max(1.0, abs(plain)):
            self.owner = owner
        else:
            _warn(reason)

    def packs(self, packed: Batch, alone: Sequence[Batch]) -> bool:
        """Whether packed rows have the loss that they have alone; says on stderr why not."""
        expected = sum(float(self.value(one)) for one in alone)
        try:
            found = float(self.value(packed))
            reason = f"their loss is {found:.6g}, and {expected:.6g} alone"
        except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
            found, reason = float("nan"), str(error) or type(error).__name__
        exact = tensors.flat(self.model.parameters()).values()
        tolerance = PACKED_TOLERANCE if all(one.dtype in EXACT for one in exact) else TOLERANCE
        if abs(found - expected) <= tolerance * abs(expected):
            return True
        print(f"snaketune: this model cannot keep packed rows apart ({reason}); they are not packed", file=sys.stderr)
        return False

    def _apart(self, batch: Batch) -> dict[str, Any]:
        """What a forward pass is given besides its inputs, to keep the rows of a packed batch apart."""
        if batch.segments is None:
            return {}
        return {"cache": [Isolated(mx.array(batch.segments))] * len(self.model.layers)}

    def _slice(self, hidden: mx.array) -> int:
        vocabulary = _head(self.owner, self.backbone, hidden[None, :1]).shape[-1]  # a shape; nothing is computed
        return max(1, SLICE_BYTES // (4 * vocabulary))

    def _head_loss(self, hidden: mx.array, targets: mx.array) -> mx.array:
        logits = _head(self.owner, self.backbone, hidden[None])
        return cross_entropy(logits[0], targets).sum()


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Negative log-likelihood of each target, in fp32; logits (n, vocabulary), targets (n,)."""
    losses: mx.array = _entropy_and_softmax(logits.astype(mx.float32), targets)[0]  # type: ignore[index]
    return losses


@mx.custom_function
def _entropy_and_softmax(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """One exponential for each logit serves the loss and its gradient; on a CPU they are half of the head's time.

    The largest probability is 1 / sum(exp(logit - largest logit)), so its logarithm gives the sum back.
    """
    softmax = mx.softmax(logits, axis=-1)
    sums = logits.max(axis=-1) - mx.log(softmax.max(axis=-1))
    return sums - mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0], softmax


@_entropy_and_softmax.vjp
def _slope(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
    targets, softmax = primals[1][:, None], outputs[1]
    hit = mx.take_along_axis(softmax, targets, axis=-1) - 1
    return mx.put_along_axis(softmax, targets, hit, axis=-1) * cotangents[0][:, None], mx.zeros_like(primals[1])


def _split(model: nn.Module) -> tuple[Any, str]:
    """The module whose `__call__` is backbone then head, and the name of its backbone; (None, "") if there is none."""
    while isinstance(getattr(model, "language_model", None), nn.Module):
        model = model.language_model
    for name in BACKBONES:
        if isinstance(getattr(model, name, None), nn.Module):
            return model, name
    return None, ""


class _Answered:
    """A backbone that has already answered: called with anything, it gives `hidden`; else it is the backbone."""

    def __init__(self, backbone: Any, hidden: mx.array) -> None:
        self._backbone, self._hidden = backbone, hidden

    def __call__(self, *_: Any, **__: Any) -> mx.array:
        return self._hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)


class _Headed:
    """A model whose backbone has already answered; else it is the model."""

    def __init__(self, owner: Any, name: str, hidden: mx.array) -> None:
        self._owner = owner
        setattr(self, name, _Answered(getattr(owner, name), hidden))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._owner, name)


def _head(owner: Any, backbone: str, hidden: mx.array) -> mx.array:
    """The model's own logits for hidden states (1, n, width)."""
    return type(owner).__call__(_Headed(owner, backbone, hidden), mx.zeros(hidden.shape[:2], mx.int32))


def _warn(reason: str) -> None:
    print(
        f"snaketune: this architecture's head cannot be run on trained positions alone ({reason}); "
        "all positions are computed, which is slower and takes more memory",
        file=sys.stderr,
    )
