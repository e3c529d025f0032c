"""Prompt tuning in MLX: an embedding with learned vectors for the virtual tokens, and the weights that hold them.

What it is, and why the fused model's head is a matrix of its own, says `engines.torch.prompt_embedding`.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from snaketune.contracts.train import PromptParameters

EMBEDDING = "model.embed_tokens"
HEAD = "lm_head"


class PromptEmbedding(nn.Module):
    """A frozen embedding, and in the places of the virtual tokens the vectors `prompt` (tokens, hidden size)."""

    def __init__(self, embedding: nn.Module, vectors: mx.array, first_id: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.embedding, self.prompt, self.first_id = embedding, vectors, first_id

    def __call__(self, ids: mx.array) -> mx.array:
        places, count = ids - self.first_id, self.prompt.shape[0]
        is_virtual = (places >= 0) & (places < count)
        words = self.embedding(mx.where(is_virtual, 0, ids))
        learned = self.prompt[mx.clip(places, 0, count - 1)].astype(words.dtype)
        return mx.where(is_virtual[..., None], learned, words)

    def as_linear(self, hidden: mx.array) -> mx.array:
        """The logits of a head that is the embedding's matrix; virtual tokens have none."""
        logits: mx.array = self.embedding.as_linear(hidden)
        return logits


def insert(model: nn.Module, described: PromptParameters) -> PromptEmbedding:
    """Replace a model's embedding by one with places for these virtual tokens, whose vectors are still to come."""
    name, embedding = next((name, part) for name, part in model.named_modules() if name.endswith(EMBEDDING))
    layer = PromptEmbedding(embedding, mx.zeros((described.num_virtual_tokens, 1)), described.first_id)
    parent = model
    *path, last = name.split(".")
    for part in path:
        parent = getattr(parent, part)
    setattr(parent, last, layer)
    return layer


def find(model: nn.Module) -> PromptEmbedding | None:
    """The layer of a model that has its learned vectors; None where it has none."""
    return next((part for _, part in model.named_modules() if isinstance(part, PromptEmbedding)), None)


def merged_tensors(
    tensors: dict[str, mx.array], vectors: dict[str, mx.array], described: PromptParameters
) -> tuple[dict[str, mx.array], dict[str, object]]:
    """A base's tensors by name with learned vectors as rows of the embedding, and a head that never says them.

    The second value is what the merged model's config.json says otherwise than the base's.
    """
    ((name, rows),) = vectors.items()
    embedding = f"{name.rpartition('.')[0]}.weight"
    head = embedding.replace(EMBEDDING, HEAD)
    words = tensors[embedding].astype(mx.float32)
    out = tensors.get(head, words).astype(mx.float32)
    silent = mx.broadcast_to(out.mean(0, keepdims=True), rows.shape)
    first = described.first_id
    changed = {embedding: _with_rows(words, rows, first), head: _with_rows(out, silent, first)}
    return tensors | changed, {"vocab_size": changed[embedding].shape[0], "tie_word_embeddings": False}


def _with_rows(weight: mx.array, rows: mx.array, first: int) -> mx.array:
    """A matrix (vocabulary, width) with these rows from `first` on; rows between it and them are their last one."""
    gap = mx.broadcast_to(rows[-1:], (max(0, first - weight.shape[0]), rows.shape[1]))
    return mx.concatenate([weight[:first], gap, rows.astype(mx.float32), weight[first + rows.shape[0] :]])
