"""Answers-only cross-entropy in slices: the logits of target positions alone, and never those of all of them at once.

A transformers model is a backbone and a head. The backbone runs on all positions; the head runs on slices of the target
positions, and the gradient at the hidden states is taken at once, so that memory holds the logits of one slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from snaketune.engines.torch.capabilities import LOSS_SLICE_BYTES
from snaketune.train.batches import Batch

HEAD_TOLERANCE = 1e-5  # relative; a plain product gives the model's own logits to the bit, a softcap far others


class _KnownBackbone(nn.Module):
    """A backbone whose result is known: called with anything, it returns `hidden`."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *_: object, **__: object) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.hidden)


class ChunkedCrossEntropy:
    """Sum of the negative log-likelihoods (nats) of a batch's labels under a model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.device = model, model.device
        self.slice_size = max(1, LOSS_SLICE_BYTES // (4 * model.config.vocab_size))
        self.head_weight = self._plain_head()

    def backward(self, batch: Batch, num_target_tokens: int) -> torch.Tensor:
        """Add the gradient of the sum / num_target_tokens to what is trained; returns that share of the loss."""
        hidden = self._hidden(batch)
        at_targets = hidden.detach().requires_grad_(True)
        loss = torch.zeros((), device=self.device)
        gradient = torch.empty_like(at_targets)
        labels = self._labels(batch)
        for start in range(0, len(labels), self.slice_size):
            part = slice(start, start + self.slice_size)
            value, gradient[part] = self._head_gradient(at_targets[part].detach(), labels[part], num_target_tokens)
            loss += value
        if hidden.requires_grad:
            hidden.backward(gradient)
        return loss

    @torch.no_grad()
    def value(self, batch: Batch) -> torch.Tensor:
        """The sum alone; nothing of a gradient is computed."""
        hidden, labels = self._hidden(batch), self._labels(batch)
        loss = torch.zeros((), device=self.device)
        for start in range(0, len(labels), self.slice_size):
            part = slice(start, start + self.slice_size)
            loss += functional.cross_entropy(self.logits(hidden[part]).float(), labels[part], reduction="sum")
        return loss

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The model's logits (n, vocabulary) for hidden states (n, hidden size)."""
        if self.head_weight is not None:
            return functional.linear(hidden.to(self.head_weight.dtype), self.head_weight)
        with _replaced_backbone(self.model, hidden[None]):
            return self.model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=self.device)).logits[0]

    def _hidden(self, batch: Batch) -> torch.Tensor:
        """The backbone's hidden states at the batch's target positions."""
        inputs = torch.from_numpy(batch.inputs).to(self.device, torch.long)
        packing = {} if batch.segments is None else {"position_ids": _restarting(batch, self.device)}
        hidden = self.model.base_model(input_ids=inputs, use_cache=False, **packing).last_hidden_state
        return hidden.reshape(-1, hidden.shape[-1])[
            torch.from_numpy(batch.target_positions).to(self.device, torch.long)
        ]

    def _labels(self, batch: Batch) -> torch.Tensor:
        return torch.from_numpy(batch.labels).to(self.device, torch.long)

    def _head_gradient(
        self, hidden: torch.Tensor, labels: torch.Tensor, num_target_tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A slice's share of the loss and its gradient at the hidden states; that of a trained head is added to it."""
        weight = self.head_weight
        if weight is None or weight.requires_grad:
            hidden = hidden.requires_grad_(True)
            logits = self.logits(hidden).float()
            loss = functional.cross_entropy(logits, labels, reduction="sum") / num_target_tokens
            loss.backward()
            assert hidden.grad is not None
            return loss.detach(), hidden.grad
        with torch.no_grad():
            logits = functional.linear(hidden.to(weight.dtype), weight).float()
            chosen, largest = logits.gather(1, labels[:, None])[:, 0], logits.amax(1)
            logits.sub_(largest[:, None]).exp_()  # one exponential serves the loss and its gradient
            sums = logits.sum(1)
            loss = (largest + sums.log() - chosen).sum() / num_target_tokens
            logits.div_(sums[:, None])  # the softmax, in the place of the logits
            logits[torch.arange(len(labels), device=self.device), labels] -= 1
            return loss, (logits.to(weight.dtype) @ weight / num_target_tokens).to(hidden.dtype)

    @torch.no_grad()
    def _plain_head(self) -> torch.Tensor | None:
        """The head's matrix, if the model's logits are its product with the hidden states and nothing more.

        Measured: softcaps, scales and biases differ from it.
        """
        head = self.model.get_output_embeddings()
        weight = getattr(head, "weight", None)
        if type(head) is not nn.Linear or head.bias is not None or weight is None:
            return None
        ids = torch.arange(8, device=self.device)[None] % self.model.config.vocab_size
        hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        expected = self.model(input_ids=ids, use_cache=False).logits
        found = functional.linear(hidden.to(weight.dtype), weight)
        is_plain = (found - expected).abs().max() <= HEAD_TOLERANCE * expected.abs().max()
        return weight if bool(is_plain) else None


def _restarting(batch: Batch, device: torch.device) -> torch.Tensor:
    """Position ids (1, width) that begin anew in each row of a packed batch; transformers masks rows apart by them."""
    assert batch.segments is not None
    segments = torch.from_numpy(batch.segments).to(device, torch.long)
    places = torch.arange(len(segments), device=device)
    first = torch.ones_like(segments, dtype=torch.bool)
    first[1:] = segments[1:] != segments[:-1]
    starts = torch.where(first, places, torch.zeros_like(places)).cummax(0).values
    return (places - starts)[None]


@contextmanager
def _replaced_backbone(model: PreTrainedModel, hidden: torch.Tensor) -> Iterator[None]:
    """A model whose own forward computes nothing but its head, on these hidden states (1, n, hidden size)."""
    name = model.base_model_prefix
    backbone = getattr(model, name)
    setattr(model, name, _KnownBackbone(hidden))
    try:
        yield
    finally:
        setattr(model, name, backbone)
