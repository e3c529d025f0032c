"""Prompt tuning: an embedding with learned vectors for the virtual tokens, and the weights that hold them for others.

While it is trained and scored, the vectors stand beside the base's embedding, so a head that is the same matrix knows
nothing of them. In a fused model they are rows of the embedding, and the head is a matrix of its own, in which every
virtual token has the mean of all rows: by Jensen's inequality none then has more than one part in the vocabulary of
the probability, and greedy decoding never chooses one.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from snaketune.contracts.train import PromptParameters

EMBEDDING = "model.embed_tokens"
HEAD = "lm_head"


class PromptEmbedding(nn.Module):
    """A frozen embedding, and in the places of the virtual tokens the vectors `prompt` (tokens, hidden size)."""

    def __init__(self, embedding: nn.Embedding, described: PromptParameters) -> None:
        super().__init__()
        self.embedding, self.virtual_ids = embedding, described.ids
        self.scale = getattr(embedding, "embed_scale", 1.0)  # Gemma 3's own class multiplies what it looks up
        width, device = embedding.embedding_dim, embedding.weight.device
        self.prompt = nn.Parameter(torch.zeros(described.num_virtual_tokens, width, device=device))

    @property
    def weight(self) -> torch.Tensor:
        """The embedding's matrix, which may be the head's too."""
        return self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        places = ids - self.virtual_ids.start
        is_virtual = (places >= 0) & (places < len(self.virtual_ids))
        words = cast(torch.Tensor, self.embedding(ids.masked_fill(is_virtual, 0)))
        learned = (self.prompt * self.scale).to(words.dtype)
        return words.index_put((is_virtual,), learned[places[is_virtual]])


def insert(model: PreTrainedModel, described: PromptParameters) -> PromptEmbedding:
    """Replace a model's embedding by one with places for these virtual tokens."""
    layer = PromptEmbedding(cast(nn.Embedding, model.get_input_embeddings()), described)
    parent, _, last = EMBEDDING.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
    return layer


def find(model: nn.Module) -> PromptEmbedding | None:
    """The layer of a model that has its learned vectors; None where it has none."""
    return next((part for part in model.modules() if isinstance(part, PromptEmbedding)), None)


def with_rows(weight: torch.Tensor, rows: torch.Tensor, first: int) -> torch.Tensor:
    """A matrix (vocabulary, width) with these rows from `first` on; rows between it and them are their last one."""
    gap = rows[-1:].expand(max(0, first - len(weight)), -1)
    return torch.cat([weight[:first], gap, rows, weight[first + len(rows) :]])


def silent_rows(weight: torch.Tensor, count: int) -> torch.Tensor:
    """Rows of a head for so many tokens that are never to be said."""
    return weight.mean(0, keepdim=True).expand(count, -1)
