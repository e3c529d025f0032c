"""Peak memory of training by part, in bytes: counted from shapes and operations, without fitted constants.

A step of training has two moments that can be its peak. At the end of the forward pass there are the weights, the
adapter, the optimizer's moments, what every block kept for the backward pass, and the logits of the loss. While the
weights are updated the activations are gone, and there are the old and the new weights and moments, and the gradient.
The counts are of mlx-lm's blocks and this project's loss and optimizer; docs/planning.md holds them against
measurements.
"""

from __future__ import annotations

from snaketune.config.sections import TrainConfig
from snaketune.contracts.plan import BatchShape, MemoryForecast
from snaketune.engines import get_capabilities
from snaketune.plan.architecture import Architecture

FLOAT32_BYTES = 4  # bytes: adapters, their gradients and moments, and the loss are float32
LOSS_COPIES = 5  # logits, float32 logits, softmax, the targets' scattered gradient, the sum of the two
SCORE_COPIES = 2  # in the block that is on its way back, beside the probabilities that each block kept
VECTOR_COPIES = 5  # temporary ones of such a vector
MOMENTS = {"adamw": 2, "adam": 2, "adamax": 2, "adadelta": 2, "adafactor": 0}  # copies of the weights; others hold one


def forecast(model: Architecture, train: TrainConfig, batch: BatchShape, dtype_bytes: int) -> MemoryForecast:
    """Return the peak bytes of training by part.

    dtype_bytes: of a weight that is not quantized (4 on a CPU, else the model's own 2).
    """
    full, whole = train.method == "full", trained_layers(model, train) == model.num_layers
    each = dtype_bytes if full else FLOAT32_BYTES
    trained = trainable(model, train) * each
    moments = MOMENTS.get(train.optimizer, 1) * trained
    always = {
        "weights": weight_bytes(model, dtype_bytes) - (trained if full else 0),
        "adapter": trained,
        "optimizer": moments,
    }
    passing = {
        "gradients": trained if train.gradient_accumulation_steps > 1 else 0,
        "activations": _activations(model, train, batch, dtype_bytes),
        "attention": _attention(model, train, batch, dtype_bytes),
        "logits": _logits(model, batch, dtype_bytes, sliced=not (full and whole)),
    }
    updating = {
        "gradients": trained,
        "update": trained + moments + VECTOR_COPIES * _largest_vector(model, train) * each,
    }
    higher = max(passing, updating, key=lambda parts: sum(parts.values()))
    parts = dict.fromkeys(MemoryForecast.__struct_fields__, 0) | always | higher
    return MemoryForecast(**parts | {"total": sum(parts.values())})


def trained_layers(model: Architecture, train: TrainConfig) -> int:
    """How many blocks, counted from the last, have something to train; the others keep nothing for a backward pass."""
    return min(model.num_layers, train.num_layers or model.num_layers)


def trainable(model: Architecture, train: TrainConfig) -> int:
    """How many weights are trained."""
    layers = trained_layers(model, train)
    if train.method == "full":
        return (
            model.parameters if layers == model.num_layers else layers * (model.block_weights + 2 * model.hidden_size)
        )
    magnitudes = sum(linear.outputs * linear.num_experts for linear in model.targeted(train.target_modules))
    per_block = model.adapter_weights(train.rank, train.target_modules) // model.num_layers
    return layers * (per_block + (magnitudes if train.method == "dora" else 0))


def weight_bytes(model: Architecture, dtype_bytes: int) -> int:
    """Bytes of the base's weights in memory; quantized matrices and embeddings keep their bits."""
    matrices = model.num_layers * model.block_weights + model.embedding_weights
    if model.quantized:
        return int(matrices * model.bits / 8) + model.norm_weights * dtype_bytes
    return (matrices + model.norm_weights) * dtype_bytes


def _saved_activations(model: Architecture, train: TrainConfig, dtype_bytes: int) -> int:
    """Bytes that a block's forward pass keeps for its backward pass, for each position.

    Two residual sums, two normed inputs, queries and keys (rotated), values, the attention's output, and of the MLP
    gate, up, sigmoid, silu and product. A LoRA layer keeps its low-rank product, its input once more where that is cast
    to float32 or dropped out, and then the mask, a byte each; a DoRA layer its output before the magnitude.
    """
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    kept = dtype_bytes * (
        4 * model.hidden_size + 2 * queries + 2 * keys + (5 if model.gated else 2) * model.active_intermediate_size
    )
    if train.method == "full":
        return kept
    for linear in model.targeted(train.target_modules):
        width = (
            linear.inputs
            if linear.num_experts == 1
            else linear.inputs * model.active_intermediate_size // model.intermediate_size
        )
        kept += FLOAT32_BYTES * train.rank
        kept += FLOAT32_BYTES * width if dtype_bytes < FLOAT32_BYTES else 0
        kept += (dtype_bytes + 1) * width if train.dropout else 0
        kept += dtype_bytes * linear.outputs if train.method == "dora" else 0
    return kept


def _activations(model: Architecture, train: TrainConfig, batch: BatchShape, dtype_bytes: int) -> int:
    """All blocks' activations; with checkpointing every block's input and one block's activations."""
    block = batch.positions * _saved_activations(model, train, dtype_bytes)
    if train.method == "dora":  # the weights with the adapter added, and, of a quantized base, without
        block += (2 if model.quantized else 1) * model.block_weights * dtype_bytes
    layers = trained_layers(model, train)
    if train.gradient_checkpointing:
        return layers * batch.positions * model.hidden_size * dtype_bytes + block
    return layers * block


def _attention(model: Architecture, train: TrainConfig, batch: BatchShape, dtype_bytes: int) -> int:
    """Attention's probabilities, heads x length x length a row, and the scores of the block on its way back."""
    one = batch.rows * model.num_heads * batch.length * batch.length * dtype_bytes
    kept = 1 if train.gradient_checkpointing else trained_layers(model, train)
    return one * (kept + SCORE_COPIES)


def _logits(model: Architecture, batch: BatchShape, dtype_bytes: int, sliced: bool) -> int:
    """The loss's logits, a slice of the trained positions at a time, or all where the head itself is trained."""
    rows = (
        min(batch.num_targets, max(1, get_capabilities().LOSS_SLICE_BYTES // (FLOAT32_BYTES * model.vocab_size)))
        if sliced
        else batch.num_targets
    )
    return rows * model.vocab_size * (dtype_bytes + (LOSS_COPIES - 1) * FLOAT32_BYTES)


def _largest_vector(model: Architecture, train: TrainConfig) -> int:
    """Weights in the largest vector of an update: several small matrices together, or one large one."""
    if train.method == "full":
        whole = trained_layers(model, train) == model.num_layers
        widest = max(linear.num_params for linear in model.linears)
        largest = max(widest, model.vocab_size * model.hidden_size if whole else 0)
    else:
        largest = max(train.rank * max(one.inputs, one.outputs) for one in model.targeted(train.target_modules))
    return min(trainable(model, train), max(get_capabilities().FLAT_CHUNK, largest))
