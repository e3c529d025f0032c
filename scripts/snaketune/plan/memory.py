"""What training will hold in memory, by part, in bytes: counted from shapes and operations, fitted to nothing.

A step of training has two moments that can be its peak. At the end of the forward pass there are the weights, the
adapter, the optimizer's moments, what every block kept for the backward pass, and the logits of the loss. While the
weights are updated the activations are gone, and there are the old and the new weights and moments, and the gradient.
The counts are of mlx-lm's blocks and this project's loss and optimizer; docs/planning.md holds them against
measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snaketune.plan.architecture import Architecture

FLOAT = 4  # bytes: adapters, their gradients and moments, and the loss are float32
LOSS_SLICE = 64 << 20  # bytes of float32 logits that the loss makes at once
LOSS_COPIES = 5  # logits, float32 logits, softmax, the targets' scattered gradient, the sum of the two
SCORE_COPIES = 2  # in the block that is on its way back, beside the probabilities that each block kept
VECTOR = 1 << 19  # weights that an update works through at once
VECTOR_COPIES = 5  # temporary ones of such a vector
MOMENTS = {"adamw": 2, "adam": 2, "adamax": 2, "adadelta": 2, "adafactor": 0}  # copies of the weights; others hold one
PARTS = ("weights", "adapter", "optimizer", "gradients", "activations", "attention", "logits", "update")


@dataclass(frozen=True)
class Batch:
    """The micro-batch that takes most: `rows` x `length` positions with padding, of which `targets` are trained."""

    rows: int
    length: int
    targets: int

    @property
    def positions(self) -> int:
        return self.rows * self.length


def forecast(model: Architecture, train: dict[str, Any], batch: Batch, number: int) -> dict[str, int]:
    """Peak bytes of training by part, and their `total`; parts that the higher of the two moments lacks are 0.

    number: bytes of a number that is not quantized (4 on a CPU, else the model's own 2).
    """
    full = train["method"] == "full"
    each = number if full else FLOAT
    trained = trainable(model, train) * each
    moments = MOMENTS.get(train["optimizer"], 1) * trained
    always = {
        "weights": weight_bytes(model, number) - (trained if full else 0),
        "adapter": trained,
        "optimizer": moments,
    }
    passing = {
        "gradients": trained if train["gradient_accumulation_steps"] > 1 else 0,
        "activations": _activations(model, train, batch, number),
        "attention": _attention(model, train, batch, number),
        "logits": _logits(model, batch, number, sliced=not (full and trained_layers(model, train) == model.layers)),
    }
    updating = {
        "gradients": trained,
        "update": trained + moments + VECTOR_COPIES * _largest_vector(model, train) * each,
    }
    higher = max(passing, updating, key=lambda parts: sum(parts.values()))
    parts = {name: (always | higher).get(name, 0) for name in PARTS}
    return {**parts, "total": sum(parts.values())}


def trained_layers(model: Architecture, train: dict[str, Any]) -> int:
    """How many blocks, counted from the last, have something to train; the others keep nothing for a backward pass."""
    return min(model.layers, train["num_layers"] or model.layers)


def trainable(model: Architecture, train: dict[str, Any]) -> int:
    """How many weights are trained."""
    layers = trained_layers(model, train)
    if train["method"] == "full":
        return model.parameters if layers == model.layers else layers * (model.block_weights + 2 * model.hidden)
    magnitudes = sum(linear.outputs * linear.copies for linear in model.targeted(train["target_modules"]))
    per_block = model.adapter_weights(train["rank"], train["target_modules"]) // model.layers
    return layers * (per_block + (magnitudes if train["method"] == "dora" else 0))


def weight_bytes(model: Architecture, number: int) -> int:
    """Bytes of the base's weights in memory; quantized matrices and embeddings keep their bits."""
    matrices = model.layers * model.block_weights + model.embedding_weights
    if model.quantized:
        return int(matrices * model.bits / 8) + model.norm_weights * number
    return (matrices + model.norm_weights) * number


def _kept_by_block(model: Architecture, train: dict[str, Any], number: int) -> int:
    """Bytes that a block's forward pass keeps for its backward pass, for each position.

    Two residual sums, two normed inputs, queries and keys (rotated), values, the attention's output, and of the MLP
    gate, up, sigmoid, silu and product. A LoRA layer keeps its low-rank product, its input once more where that is cast
    to float32 or dropped out, and then the mask, a byte each; a DoRA layer its output before the magnitude.
    """
    queries, keys = model.heads * model.head_size, model.kv_heads * model.head_size
    kept = number * (4 * model.hidden + 2 * queries + 2 * keys + (5 if model.gated else 2) * model.active_inner)
    if train["method"] == "full":
        return kept
    for linear in model.targeted(train["target_modules"]):
        width = linear.inputs if linear.copies == 1 else linear.inputs * model.active_inner // model.inner
        kept += FLOAT * train["rank"]
        kept += FLOAT * width if number < FLOAT else 0
        kept += (number + 1) * width if train["dropout"] else 0
        kept += number * linear.outputs if train["method"] == "dora" else 0
    return kept


def _activations(model: Architecture, train: dict[str, Any], batch: Batch, number: int) -> int:
    """All blocks' activations; with checkpointing every block's input and one block's activations."""
    block = batch.positions * _kept_by_block(model, train, number)
    if train["method"] == "dora":  # the weights with the adapter added, and, of a quantized base, without
        block += (2 if model.quantized else 1) * model.block_weights * number
    layers = trained_layers(model, train)
    if train["gradient_checkpointing"]:
        return layers * batch.positions * model.hidden * number + block
    return layers * block


def _attention(model: Architecture, train: dict[str, Any], batch: Batch, number: int) -> int:
    """Attention's probabilities, heads x length x length a row, and the scores of the block on its way back."""
    one = batch.rows * model.heads * batch.length * batch.length * number
    kept = 1 if train["gradient_checkpointing"] else trained_layers(model, train)
    return one * (kept + SCORE_COPIES)


def _logits(model: Architecture, batch: Batch, number: int, sliced: bool) -> int:
    """The loss's logits, a slice of the trained positions at a time, or all where the head itself is trained."""
    rows = min(batch.targets, max(1, LOSS_SLICE // (FLOAT * model.vocabulary))) if sliced else batch.targets
    return rows * model.vocabulary * (number + (LOSS_COPIES - 1) * FLOAT)


def _largest_vector(model: Architecture, train: dict[str, Any]) -> int:
    """Weights in the largest vector of an update: several small matrices together, or one large one."""
    if train["method"] == "full":
        whole = trained_layers(model, train) == model.layers
        widest = max(linear.weights for linear in model.linears)
        largest = max(widest, model.vocabulary * model.hidden if whole else 0)
    else:
        largest = max(train["rank"] * max(one.inputs, one.outputs) for one in model.targeted(train["target_modules"]))
    return min(trainable(model, train), max(VECTOR, largest))
