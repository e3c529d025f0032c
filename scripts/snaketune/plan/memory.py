"""What training will hold in memory, by part, in bytes: counted from shapes, fitted to nothing.

A training step of MLX holds the weights, the adapter, its gradients, the optimizer's two moments, and, at its peak in
the backward pass, what the forward pass kept for it (activations, attention scores, logits). What each block keeps is
counted from the operations that mlx-lm's blocks are made of; docs/planning.md has the count beside measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snaketune.plan.architecture import Architecture

FLOAT = 4  # bytes: adapters, gradients, moments and the loss are float32
PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "attention", "logits")


@dataclass(frozen=True)
class Batch:
    """The largest micro-batch: `rows` x `length` positions, of which `targets` are trained."""

    rows: int
    length: int
    targets: int

    @property
    def positions(self) -> int:
        return self.rows * self.length


def forecast(model: Architecture, train: dict[str, Any], batch: Batch, dtype_bytes: int) -> dict[str, int]:
    """Peak bytes of training by part, and their `total`.

    dtype_bytes: bytes of a number that is not quantized (4 on a CPU, else the model's own 2).
    """
    trained = trainable(model, train)
    full = train["method"] == "full"
    weights = weight_bytes(model, dtype_bytes)
    trained_bytes = dtype_bytes if full else FLOAT
    parts = {
        "weights": weights,
        "adapter": 0 if full else trained * FLOAT,
        "gradients": trained * trained_bytes * (2 if train["accumulation"] > 1 else 1),
        "optimizer": 2 * trained * trained_bytes,
        "activations": _activations(model, train, batch, dtype_bytes),
        "attention": _attention(model, train, batch, dtype_bytes),
        "logits": _logits(model, batch, dtype_bytes),
    }
    return {**parts, "total": sum(parts.values())}


def trainable(model: Architecture, train: dict[str, Any]) -> int:
    """How many weights are trained."""
    if train["method"] == "full":
        return model.parameters
    magnitudes = sum(linear.outputs * linear.copies for linear in model.targeted(train["targets"]))
    extra = model.layers * magnitudes if train["method"] == "dora" else 0
    return model.adapter_weights(train["rank"], train["targets"]) + extra


def weight_bytes(model: Architecture, dtype_bytes: int) -> int:
    """Bytes of the base's weights in memory; quantized matrices and embeddings keep their bits."""
    matrices = model.layers * model.block_weights + model.embedding_weights
    if model.quantized:
        return int(matrices * model.bits / 8) + model.norm_weights * dtype_bytes
    return (matrices + model.norm_weights) * dtype_bytes


def _kept_by_block(model: Architecture, train: dict[str, Any]) -> int:
    """Elements that a block's forward pass keeps for its backward pass, for each position.

    Two residual sums, two normed inputs, queries, keys and values, the attention's output, and five times the MLP's
    width (gate, up, sigmoid, silu, product). Dropout keeps a mask and a masked copy of every adapter's input.
    """
    queries, keys = model.heads * model.head_size, model.kv_heads * model.head_size
    kept = 4 * model.hidden + 2 * queries + 2 * keys + (5 if model.gated else 2) * model.active_inner
    adapted = model.targeted(train["targets"]) if train["method"] != "full" else ()
    if train["dropout"]:
        kept += 2 * sum(linear.inputs for linear in adapted)
    return kept + sum(2 * train["rank"] for _ in adapted)


def _activations(model: Architecture, train: dict[str, Any], batch: Batch, dtype_bytes: int) -> int:
    """All blocks' activations, or with checkpointing every block's input and one block's activations."""
    block = _kept_by_block(model, train)
    if train["gradient_checkpointing"]:
        return batch.positions * (model.layers * model.hidden + block) * dtype_bytes
    return batch.positions * model.layers * block * dtype_bytes


def _attention(model: Architecture, train: dict[str, Any], batch: Batch, dtype_bytes: int) -> int:
    """Scores and probabilities of attention, heads x length x length a row, kept for the backward pass."""
    one = 2 * batch.rows * model.heads * batch.length * batch.length * dtype_bytes
    return one if train["gradient_checkpointing"] else one * model.layers


def _logits(model: Architecture, batch: Batch, dtype_bytes: int) -> int:
    """Logits of the trained positions, their float32 softmax, and their gradient."""
    return batch.targets * model.vocabulary * (dtype_bytes + 2 * FLOAT)
