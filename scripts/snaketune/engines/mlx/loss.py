"""Chunked cross-entropy: the loss at target positions, without ever making the logits of another position.

A language model is a backbone and a head; mlx-lm writes them as one `__call__` that hands the backbone's hidden states
on. Here the backbone runs on all positions, and the model's own `__call__`, with the backbone's result put in, on the
target positions alone. So softcaps and logit scales are the model's, whatever they are. The head runs in chunks, and
the gradient at the hidden states is taken at once, so that one chunk's logits are all that memory holds.

Sequence packing puts several rows in one sequence, with a block-diagonal attention mask that keeps them apart.
mlx-lm's models ask the cache that they are given for their mask, so a cache that stores nothing and returns a
block-diagonal mask isolates the rows without a change of any model. Positions go on from row to row; rotary embeddings
see only differences of positions, which within a row are the same. Whether a model does all that is not assumed but
measured (`ChunkedCrossEntropy.supports_packing`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from snaketune.engines.mlx import loading
from snaketune.engines.mlx.capabilities import LOSS_SLICE_BYTES
from snaketune.engines.mlx.prompt_embedding import PromptEmbedding
from snaketune.train.batches import Batch


class BlockDiagonalMaskCache:
    """Stands for a KV cache in one forward pass. segments: int32 (length,), the index of each position's row."""

    offset = 0

    def __init__(self, segments: mx.array) -> None:
        self._segments = segments

    def make_mask(self, length: int, window_size: int | None = None, **_: Any) -> mx.array:
        """bool (length, length): the positions of its own row that each position sees, at most `window_size` of them.

        mlx-lm also says whether the mask must be an array; here it always is.
        """
        positions = mx.arange(length)
        query, key = positions[:, None], positions[None]
        mask = (query >= key) & (self._segments[:, None] == self._segments[None])
        return mask if window_size is None else mask & (query < key + window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Return keys and values as they are: nothing came before."""
        return keys, values


EXACT_DTYPES = (mx.float32, mx.uint32)  # uint32: the packed words of quantized weights
BACKBONES = ("model", "backbone", "transformer")
PACKED_TOLERANCE = 1e-4  # relative difference between packed and unpacked rows, in float32
TOLERANCE = 2e-3  # relative difference between the chunked loss and the plain one; bfloat16 rounds at 4e-3 a value


class ChunkedCrossEntropy:
    """Sum of the negative log-likelihoods (nats) of a batch's labels under a model.

    `probe_split_head` decides once, on a few tokens, whether the model's head can run apart from its backbone.
    """

    def __init__(self, model: nn.Module) -> None:
        self.chunk_size = 0  # positions, known once the vocabulary is
        self.model = model
        self.owner, self.backbone = _find_backbone(model)
        elsewhere = [*model.layers, *(part for _, part in model.named_modules() if isinstance(part, PromptEmbedding))]
        found = (loading.flatten(part.trainable_parameters()) for part in elsewhere)
        not_of_head = {id(tensor) for part in found for tensor in part.values()}
        trained = loading.flatten(model.trainable_parameters()).values()
        self.head_is_trained = any(id(tensor) not in not_of_head for tensor in trained)

    def __call__(self, batch: Batch) -> tuple[mx.array, mx.array]:
        """(what to differentiate, the loss). They differ where the gradient at the hidden states is taken at once:
        then the first is a number without a meaning of its own that has the loss's gradient."""
        inputs, positions, labels = (mx.array(a) for a in (batch.inputs, batch.target_positions, batch.labels))
        packing = self._packing_kwargs(batch)
        if self.owner is None:
            logits = self.model(inputs, **packing)
            loss = cross_entropy(logits.reshape(-1, logits.shape[-1])[positions], labels).sum()
            return loss, loss
        hidden = getattr(self.owner, self.backbone)(inputs, **packing)
        hidden = hidden.reshape(-1, hidden.shape[-1])[positions]
        self.chunk_size = self.chunk_size or self._chunk_size(hidden)
        if self.head_is_trained:
            loss = self._head_loss(hidden, labels)
            return loss, loss
        surrogate, loss = mx.array(0.0), mx.array(0.0)
        for start in range(0, len(labels), self.chunk_size):
            chunk, chunk_labels = hidden[start : start + self.chunk_size], labels[start : start + self.chunk_size]
            value, gradient = mx.value_and_grad(self._head_loss)(mx.stop_gradient(chunk), chunk_labels)
            loss = loss + value
            surrogate = surrogate + (chunk * mx.stop_gradient(gradient)).astype(mx.float32).sum()
        return surrogate, mx.stop_gradient(loss)

    def value(self, batch: Batch) -> mx.array:
        """The loss alone; nothing of a gradient is computed."""
        return self(batch)[1]

    def probe_split_head(self, batch: Batch) -> None:
        """Compare with the plain loss on the first row of a batch; where they differ, use the plain one from now on."""
        if self.owner is None:
            _warn("its parts have other names")
            return
        width = min(batch.inputs.shape[1], 64)
        few = Batch(batch.inputs[:1, :width], np.arange(width, dtype=np.int32), batch.inputs[0, :width], width)
        try:
            chunked = float(self.value(few))
        except (AttributeError, TypeError, ValueError) as error:
            chunked, reason = float("nan"), str(error)
        else:
            reason = "the losses differ"
        owner, self.owner = self.owner, None
        plain = float(self.value(few))
        if abs(chunked - plain) <= TOLERANCE * max(1.0, abs(plain)):
            self.owner = owner
        else:
            _warn(reason)

    def supports_packing(self, packed: Batch, unpacked: Sequence[Batch]) -> bool:
        """Whether packed rows have the loss that they have one by one; prints why not to stderr."""
        expected = sum(float(self.value(batch)) for batch in unpacked)
        try:
            loss = float(self.value(packed))
            reason = f"their loss is {loss:.6g}, and {expected:.6g} one by one"
        except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
            loss, reason = float("nan"), str(error) or type(error).__name__
        parameters = loading.flatten(self.model.parameters()).values()
        tolerance = PACKED_TOLERANCE if all(one.dtype in EXACT_DTYPES for one in parameters) else TOLERANCE
        if abs(loss - expected) <= tolerance * abs(expected):
            return True
        print(f"snaketune: this model cannot keep packed rows apart ({reason}); they are not packed", file=sys.stderr)
        return False

    def _packing_kwargs(self, batch: Batch) -> dict[str, list[BlockDiagonalMaskCache]]:
        """What a forward pass takes besides its inputs, to keep the rows of a packed batch apart."""
        if batch.segments is None:
            return {}
        return {"cache": [BlockDiagonalMaskCache(mx.array(batch.segments))] * len(self.model.layers)}

    def _chunk_size(self, hidden: mx.array) -> int:
        vocab_size = _head(self.owner, self.backbone, hidden[None, :1]).shape[-1]  # a shape; nothing is computed
        return max(1, LOSS_SLICE_BYTES // (4 * vocab_size))

    def _head_loss(self, hidden: mx.array, labels: mx.array) -> mx.array:
        """hidden: (n, hidden size); labels: (n,)."""
        logits = _head(self.owner, self.backbone, hidden[None])
        return cross_entropy(logits[0], labels).sum()


def cross_entropy(logits: mx.array, labels: mx.array) -> mx.array:
    """Negative log-likelihood of each label, float32 (n,), in nats; logits (n, vocabulary), labels (n,)."""
    losses: mx.array = _loss_and_softmax(logits.astype(mx.float32), labels)[0]  # type: ignore[index]
    return losses


@mx.custom_function
def _loss_and_softmax(logits: mx.array, labels: mx.array) -> tuple[mx.array, mx.array]:
    """One exponential for each logit serves the loss and its gradient; on a CPU they are half of the head's time.

    The largest probability is 1 / sum(exp(logit - largest logit)), so its logarithm gives the sum back.
    """
    softmax = mx.softmax(logits, axis=-1)
    sums = logits.max(axis=-1) - mx.log(softmax.max(axis=-1))
    return sums - mx.take_along_axis(logits, labels[:, None], axis=-1)[:, 0], softmax


@_loss_and_softmax.vjp
def _cross_entropy_vjp(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
    labels, softmax = primals[1][:, None], outputs[1]
    at_labels = mx.take_along_axis(softmax, labels, axis=-1) - 1
    return mx.put_along_axis(softmax, labels, at_labels, axis=-1) * cotangents[0][:, None], mx.zeros_like(primals[1])


def _find_backbone(model: nn.Module) -> tuple[Any, str]:
    """The module whose `__call__` is backbone then head, and the name of its backbone; (None, "") if there is none."""
    while isinstance(getattr(model, "language_model", None), nn.Module):
        model = model.language_model
    for name in BACKBONES:
        if isinstance(getattr(model, name, None), nn.Module):
            return model, name
    return None, ""


class _CachedBackbone:
    """A backbone whose result is known: called with anything, it returns `hidden`; otherwise it is the backbone."""

    def __init__(self, backbone: Any, hidden: mx.array) -> None:
        self._backbone, self._hidden = backbone, hidden

    def __call__(self, *_: Any, **__: Any) -> mx.array:
        return self._hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)


class _HeadOnlyModel:
    """A model whose backbone is a `_CachedBackbone`; otherwise it is the model."""

    def __init__(self, owner: Any, name: str, hidden: mx.array) -> None:
        self._owner = owner
        setattr(self, name, _CachedBackbone(getattr(owner, name), hidden))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._owner, name)


def _head(owner: Any, backbone: str, hidden: mx.array) -> mx.array:
    """The model's own logits (1, n, vocabulary) for hidden states (1, n, hidden size)."""
    return type(owner).__call__(_HeadOnlyModel(owner, backbone, hidden), mx.zeros(hidden.shape[:2], mx.int32))


def _warn(reason: str) -> None:
    print(
        f"snaketune: this architecture's head cannot run on target positions alone ({reason}); "
        "all positions are computed, which is slower and takes more memory",
        file=sys.stderr,
    )
