"""Cross-entropy and log-probabilities in slices: the logits of wanted positions, never those of all of them at once.

A transformers model is a backbone and a head. The backbone runs on all positions. A head that is one frozen matrix goes
through in tiles of the vocabulary, whose logits stay in the processor's cache; any other runs on slices of the target
positions. The gradient at the hidden states is taken at once, so that memory holds the logits of one tile or slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from snaketune.engines.interface import LoglikelihoodRequest
from snaketune.engines.torch.capabilities import LOSS_SLICE_BYTES
from snaketune.errors import ModelError
from snaketune.train.batches import Batch

HEAD_SPREAD = 8.0  # of hidden states that are drawn: at logits this large every softcap shows
HEAD_TOLERANCE = 1e-5  # relative; a plain product gives the model's own logits to the bit, a softcap far others


class _KnownOutput(BaseModelOutputWithPast):
    """What a backbone whose result is known returns; fields that other backbones fill beside it are None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _KnownBackbone(nn.Module):
    """A backbone whose result is known: called with anything, it returns `hidden`; all else is the real one's."""

    def __init__(self, backbone: nn.Module, hidden: torch.Tensor) -> None:
        super().__init__()
        self.backbone, self.hidden = backbone, hidden
        self.was_called = False

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.backbone, name)  # heads read factors and settings from it

    def forward(self, *_: object, **__: object) -> BaseModelOutputWithPast:
        self.was_called = True
        return _KnownOutput(last_hidden_state=self.hidden)


class ChunkedCrossEntropy:
    """Sum of the negative log-likelihoods (nats) of a batch's labels under a model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.device = model, model.device
        self.slice_size = max(1, LOSS_SLICE_BYTES // (4 * model.config.vocab_size))
        self.head_weight: torch.Tensor | None = None
        self.head_weight = self._plain_head()

    def backward(self, batch: Batch, num_target_tokens: int) -> torch.Tensor:
        """Add the gradient of the sum / num_target_tokens to what is trained; returns that share of the loss."""
        hidden, labels = self._hidden(batch), self._labels(batch)
        weight = self.head_weight
        if weight is not None and not weight.requires_grad:
            loss, of_hidden = head_loss(hidden.detach(), weight, labels, with_gradient=True)
            assert of_hidden is not None
            loss, gradient = loss / num_target_tokens, (of_hidden / num_target_tokens).to(hidden.dtype)
        else:
            loss, gradient = self._sliced_gradient(hidden.detach(), labels, num_target_tokens)
        if hidden.requires_grad:
            hidden.backward(gradient)
        return loss

    @torch.no_grad()
    def value(self, batch: Batch) -> torch.Tensor:
        """The sum alone; nothing of a gradient is computed."""
        return self.value_at(self._hidden(batch), self._labels(batch))

    @torch.no_grad()
    def value_at(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum for labels (n) after hidden states (n, hidden size)."""
        if self.head_weight is not None:
            return head_loss(hidden, self.head_weight, labels, with_gradient=False).loss
        loss = torch.zeros((), device=self.device)
        for start in range(0, len(labels), self.slice_size):
            part = slice(start, start + self.slice_size)
            loss += functional.cross_entropy(self.logits(hidden[part]).float(), labels[part], reduction="sum")
        return loss

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The model's logits (n, vocabulary) for hidden states (n, hidden size)."""
        if self.head_weight is not None:
            return functional.linear(hidden.to(self.head_weight.dtype), self.head_weight)
        return _logits_of_head(self.model, hidden)

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

    def _sliced_gradient(
        self, hidden: torch.Tensor, labels: torch.Tensor, num_target_tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The share of the loss and its gradient at the hidden states, by autograd, which adds a trained head's."""
        total, gradient = torch.zeros((), device=self.device), torch.empty_like(hidden)
        for start in range(0, len(labels), self.slice_size):
            part = slice(start, start + self.slice_size)
            states = hidden[part].requires_grad_(True)
            logits = self.logits(states).float()
            loss = functional.cross_entropy(logits, labels[part], reduction="sum") / num_target_tokens
            loss.backward()
            assert states.grad is not None
            gradient[part] = states.grad
            total += loss.detach()
        return total, gradient

    @torch.no_grad()
    def _plain_head(self) -> torch.Tensor | None:
        """The head's matrix, if the model's logits are its product with the hidden states and nothing more.

        Measured on hidden states that are drawn, so that no block computes: softcaps, scales and biases differ from it.
        A model whose head does not run alone (OPT's calls a part of its backbone) is measured on those of a few tokens.
        """
        head = self.model.get_output_embeddings()
        weight = getattr(head, "weight", None)
        if type(head) is not nn.Linear or head.bias is not None or weight is None:
            return None
        drawn = torch.randn((8, weight.shape[1]), generator=torch.Generator().manual_seed(0)) * HEAD_SPREAD
        hidden = drawn.to(self.device, weight.dtype)
        try:
            expected = self.logits(hidden)
        except (ModelError, RuntimeError):
            ids = torch.arange(8, device=self.device)[None] % self.model.config.vocab_size
            hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0].to(weight.dtype)
            expected = self.model(input_ids=ids, use_cache=False).logits[0]
        found = functional.linear(hidden, weight)
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


def _logits_of_head(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """A model's own logits (n, vocabulary) for hidden states (n, hidden size), of which no block computes anything.

    A forward that does without its whole backbone, or reads more of its result than hidden states, is a ModelError.
    """
    ids = torch.zeros((1, 1), dtype=torch.long, device=hidden.device)
    cause = None
    with _replaced_backbone(model, hidden[None]) as backbone:
        try:
            logits: torch.Tensor = model(input_ids=ids).logits[0]
            if backbone.was_called and len(logits) == len(hidden):
                return logits
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            cause = error
    raise ModelError(
        f"the head of {type(model).__name__} does not run without its backbone",
        where="model.base",
        why="The loss is computed in slices of the logits, which the head makes from hidden states",
        fix="Use a model of another architecture, or the other engine",
    ) from cause


@contextmanager
def _replaced_backbone(model: PreTrainedModel, hidden: torch.Tensor) -> Iterator[_KnownBackbone]:
    """A model whose own forward computes nothing but its head, on these hidden states (1, n, hidden size)."""
    name = model.base_model_prefix
    backbone = getattr(model, name)
    known = _KnownBackbone(backbone, hidden)
    setattr(model, name, known)
    try:
        yield known
    finally:
        setattr(model, name, backbone)


TILE_BYTES = 1 << 20  # of float32 logits on a CPU: they fit the caches, and the products are still wide
FEWEST_TOKENS = 512  # in a tile: narrower products are slow


class HeadLoss(NamedTuple):
    """The sum of the negative log-likelihoods (nats) and, where it was wanted, its float32 gradient at the hidden
    states."""

    loss: torch.Tensor
    gradient: torch.Tensor | None


@torch.no_grad()
def head_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, with_gradient: bool) -> HeadLoss:
    """Compute the loss of labels (n) after hidden states (n, hidden size), whose logits are hidden @ weight.T.

    The largest logit so far and the sum of the exponentials run along with the tiles, as in flash attention (Dao et al.
    2022, arXiv:2205.14135), and so does the sum of rows that the gradient is made of: a tile is read once for both. The
    label itself stays out of all three: in 16 bits its row would drown the others' where the model is sure of it.
    """
    hidden = hidden.to(weight.dtype)
    largest = torch.full(labels.shape, -torch.inf, device=hidden.device)
    others, chosen = torch.zeros_like(largest), torch.zeros_like(largest)
    rows = torch.zeros(hidden.shape, device=hidden.device) if with_gradient else None
    tokens = min(len(weight), _tile_tokens(len(labels), hidden.device))
    # one buffer for all tiles: the system would clear the pages of new ones
    product = torch.empty(len(labels) * tokens, dtype=weight.dtype, device=hidden.device)
    wide = product if weight.dtype == torch.float32 else torch.empty(len(product), device=hidden.device)
    start = 0
    for tile in weight.split(tokens):
        size, shape = len(labels) * len(tile), (len(labels), len(tile))
        logits = torch.mm(hidden, tile.T, out=product[:size].view(shape))
        if wide is not product:
            logits = wide[:size].view(shape).copy_(logits)
        place = (labels - start)[:, None]
        in_tile, place = (place >= 0) & (place < len(tile)), place.clamp(0, len(tile) - 1)
        found = logits.gather(1, place)
        chosen = torch.where(in_tile[:, 0], found[:, 0], chosen)
        logits.scatter_(1, place, torch.where(in_tile, -torch.inf, found))
        highest = torch.maximum(largest, logits.amax(1))
        kept = (largest - highest).exp_()
        others.mul_(kept).add_(logits.sub_(highest[:, None]).exp_().sum(1))
        if rows is not None:
            rows.mul_(kept[:, None]).add_(logits.to(tile.dtype) @ tile)
        largest = highest
        start += len(tile)
    log_others = others.log()
    loss = functional.softplus(largest + log_others - chosen).sum()
    if rows is not None:
        share = torch.logaddexp(log_others, chosen - largest).neg_().exp_()
        rows.sub_(weight[labels] * others[:, None]).mul_(share[:, None])
    return HeadLoss(loss, rows)


def _tile_tokens(num_labels: int, device: torch.device) -> int:
    size = TILE_BYTES if device.type == "cpu" else LOSS_SLICE_BYTES
    return max(FEWEST_TOKENS, size // (4 * max(1, num_labels)))


WINDOW = 64  # rows that are sorted by length together
MAX_POSITIONS = 2048  # of the rows that go through at once, padding included
MAX_PADDED = 1.25  # times the tokens of rows that are not sorted by length: what they may take with their padding
DISTRIBUTION_SLICE = 256  # positions whose whole distributions are made at once


@torch.no_grad()
def loglikelihoods(head: ChunkedCrossEntropy, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
    """The loglikelihood of each row, in nats; see `engines.interface.LanguageModel.loglikelihood`.

    Rows of like length go through together, padded on the right, which a causal model does not see.
    """
    for start in range(0, len(requests), WINDOW):
        window = [_scored_part(request) for request in requests[start : start + WINDOW]]
        sums: dict[int, float] = {}
        for rows in _batches([len(ids) for ids, _ in window]):
            found = _batch_loglikelihoods(head, [window[row] for row in rows])
            sums |= dict(zip(rows, found, strict=True))
        yield from (sums[row] for row in range(len(window)))


def _scored_part(request: LoglikelihoodRequest) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a row up to its last masked token, and the positions that predict masked ones."""
    ids, loss_mask = np.asarray(request.ids, np.int64), np.asarray(request.loss_mask, bool)
    positions = np.flatnonzero(loss_mask[1:])
    return ids[: positions[-1] + 2] if len(positions) else ids[:0], positions


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Rows of like length, the longest first; rows of length 0 come alone."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > MAX_POSITIONS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _batch_loglikelihoods(head: ChunkedCrossEntropy, rows: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """The loglikelihoods of some rows that go through together."""
    if not any(len(positions) for _, positions in rows):
        return [0.0] * len(rows)
    hidden = _hidden(head, [ids[:-1] for ids, _ in rows])
    found = []
    for row, (ids, positions) in enumerate(rows):
        states = hidden[row, torch.from_numpy(positions).to(head.device)]
        found.append(-float(head.value_at(states, torch.from_numpy(ids[positions + 1]).to(head.device))))
    return found


@torch.no_grad()
def next_token_logprobs(
    head: ChunkedCrossEntropy, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> Iterator[np.ndarray]:
    """For each row ln p(next token | ids up to and including a position): float32 of shape (positions, vocabulary).

    positions: for each row ascending. Rows that are neighbors and of like length go through together.
    """
    read = [np.asarray(ids[: wanted[-1] + 1]) for ids, wanted in zip(rows, positions, strict=True)]
    for start, end in _neighbors([len(ids) for ids in read]):
        hidden = _hidden(head, read[start:end])
        for states, wanted in zip(hidden, positions[start:end], strict=True):
            yield _log_softmax(head, states, wanted)


def _log_softmax(head: ChunkedCrossEntropy, hidden: torch.Tensor, positions: Sequence[int]) -> np.ndarray:
    """The logarithms of the distributions after these positions of a row's hidden states (tokens, hidden size)."""
    parts = []
    for start in range(0, len(positions), DISTRIBUTION_SLICE):
        part = torch.tensor(list(positions[start : start + DISTRIBUTION_SLICE]), device=head.device)
        parts.append(torch.log_softmax(head.logits(hidden[part]).float(), -1).cpu().numpy())
    return np.concatenate(parts)


def _neighbors(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Where batches of rows begin and end, in the given order, with little padding."""
    start = held = longest = 0
    for row, length in enumerate(lengths):
        held, longest = held + length, max(longest, length)
        if row > start and (row + 1 - start) * longest > min(MAX_POSITIONS, MAX_PADDED * held):
            yield start, row
            start, held, longest = row, length, length
    if start < len(lengths):
        yield start, len(lengths)


def _hidden(head: ChunkedCrossEntropy, rows: Sequence[np.ndarray]) -> torch.Tensor:
    """The backbone's hidden states (rows, tokens, hidden size) of rows that are padded on the right."""
    inputs = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for row, ids in enumerate(rows):
        inputs[row, : len(ids)] = torch.from_numpy(ids)
    hidden: torch.Tensor = head.model.base_model(input_ids=inputs.to(head.device), use_cache=False).last_hidden_state
    return hidden
