"""What a run needs of a machine, counted before it starts: peak memory, disk, and the changes that make it fit.

Memory and disk are bytes, counted from shapes, operations and files, without fitted constants. A step of training has
two moments that can be its peak. At the end of the forward pass there are the weights, the adapter, the optimizer's
moments, what every block kept for the backward pass, and the logits of the loss. While the weights are updated the
activations are gone, and there are the old and the new weights and moments, and the gradient. The counts are of
mlx-lm's blocks and this project's loss and optimizer; docs/planning.md holds them against measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from snaketune.config.products import MLXType
from snaketune.config.sections import TrainConfig
from snaketune.contracts.plan import BatchShape, DiskForecast, MemoryForecast
from snaketune.engines import get_capabilities
from snaketune.errors import ResourceError
from snaketune.plan import fsdp
from snaketune.plan.architecture import Architecture

FLOAT32_BYTES = 4  # bytes: adapters, their gradients and moments, and the loss are float32
LOSS_COPIES = 5  # logits, float32 logits, softmax, the targets' scattered gradient, the sum of the two
SCORE_COPIES = 2  # in the block that is on its way back, beside the probabilities that each block kept
VECTOR_COPIES = 5  # temporary ones of such a vector
MOMENTS = {"adamw": 2, "adam": 2, "adamax": 2, "adadelta": 2, "adafactor": 0}  # copies of the weights; others hold one
# Bits a weight of llama.cpp's types in the blocks of a model (k-quants keep some matrices in a larger type). The head
# has HEAD_BITS where that is more. mxfp4_moe is of experts alone: the rest is q8_0.
GGUF_BITS = {
    "f32": 32,
    "bf16": 16,
    "f16": 16,
    "mxfp4_moe": 8.5,
    "q8_0": 8.5,
    "q6_k": 6.56,
    "q5_1": 6,
    "q5_k_m": 5.64,
    "q5_0": 5.5,
    "q5_k_s": 5.5,
    "q4_1": 5,
    "q4_k_m": 4.77,
    "iq4_nl": 4.55,
    "q4_k_s": 4.54,
    "q4_0": 4.51,
    "iq4_xs": 4.31,
    "q3_k_l": 4.14,
    "q3_k_m": 3.82,
    "iq3_m": 3.56,
    "iq3_s": 3.46,
    "q3_k_s": 3.44,
    "iq3_xs": 3.29,
    "q2_k": 2.92,
    "iq3_xxs": 2.9,
    "q2_k_s": 2.71,
    "iq2_m": 2.52,
    "q2_0": 2.41,
    "iq2_s": 2.31,
    "tq2_0": 2.24,
    "iq2_xs": 2.19,
    "iq2_xxs": 1.95,
    "tq1_0": 1.88,
    "iq1_m": 1.69,
    "iq1_s": 1.53,
    "q1_0": 1.12,
}
HEAD_BITS = 6.56
CHECKPOINTS = 3  # of weights and moments that lie there at once while training: the last two and the best
DISK_MARGIN = 1.1  # full disks fail late; a tenth more is required than is counted
LENGTHS = (4096, 2048, 1536, 1024, 768, 512, 256, 128, 64)
QUANTIZED_BITS = 4.5  # of 4 bits with their scales
QUANTIZED_IN_BLOCKS = ("nf4",)  # modes that leave embedding and head as they are
Batches = Callable[[TrainConfig, int | None], list[BatchShape]]


def forecast_memory(model: Architecture, train: TrainConfig, batch: BatchShape, dtype_bytes: int) -> MemoryForecast:
    """Return the peak bytes of training by part.

    dtype_bytes: of a weight that is not quantized (4 on a CPU, else the model's own 2).
    """
    full, whole = train.method == "full", trained_layers(model, train) == model.num_layers
    each = dtype_bytes if full else FLOAT32_BYTES
    trained = trainable(model, train) * each
    moments = MOMENTS.get(train.optimizer, 1) * trained
    weights = weight_bytes(model, dtype_bytes)
    if train.fsdp:
        weights = fsdp.held_weight_bytes(model, train, dtype_bytes, weights)
    always = {
        "weights": weights - (trained if full else 0),
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
    wanted = None if train.method == "prompt" else train.num_layers
    return min(model.num_layers, wanted or model.num_layers)


def trainable(model: Architecture, train: TrainConfig) -> int:
    """How many weights are trained."""
    if train.method == "prompt":
        return train.num_virtual_tokens * model.hidden_size
    layers = trained_layers(model, train)
    if train.method == "full":
        return (
            model.parameters if layers == model.num_layers else layers * (model.block_weights + 2 * model.hidden_size)
        )
    targeted = model.targeted(train.target_modules)
    matrices = sum(train.rank * (one.inputs + one.outputs) * one.num_experts for one in targeted)
    magnitudes = sum(one.outputs * one.num_experts for one in targeted)
    return layers * (matrices + (magnitudes if train.method == "dora" else 0))


def weight_bytes(model: Architecture, dtype_bytes: int) -> int:
    """Bytes of the base's weights in memory; quantized ones keep their bits.

    Embedding and head are quantized like the blocks in MLX's formats, and stay as they are in NF4.
    """
    blocks = model.num_layers * model.block_weights
    if not model.quantized:
        return (blocks + model.embedding_weights + model.norm_weights) * dtype_bytes
    if model.quantization in QUANTIZED_IN_BLOCKS:
        return int(blocks * model.bits / 8) + (model.embedding_weights + model.norm_weights) * dtype_bytes
    return int((blocks + model.embedding_weights) * model.bits / 8) + model.norm_weights * dtype_bytes


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
    if train.method in ("full", "prompt"):
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
    if get_capabilities().ATTENTION_IN_TILES and not model.caps_scores and not train.packing:
        return 0
    one = batch.rows * model.num_heads * batch.length * batch.length * dtype_bytes
    kept = 1 if train.gradient_checkpointing else trained_layers(model, train)
    return one * (kept + SCORE_COPIES)


def _logits(model: Architecture, batch: BatchShape, dtype_bytes: int, sliced: bool) -> int:
    """The loss's logits, a slice of the trained positions at a time, or all where the head itself is trained."""
    rows = (
        min(batch.num_target_tokens, max(1, get_capabilities().LOSS_SLICE_BYTES // (FLOAT32_BYTES * model.vocab_size)))
        if sliced
        else batch.num_target_tokens
    )
    return rows * model.vocab_size * (dtype_bytes + (LOSS_COPIES - 1) * FLOAT32_BYTES)


def _largest_vector(model: Architecture, train: TrainConfig) -> int:
    """Weights in the largest vector of an update: several small matrices together, or one large one."""
    if train.method == "full":
        whole = trained_layers(model, train) == model.num_layers
        widest = max(linear.num_params for linear in model.linears)
        largest = max(widest, model.vocab_size * model.hidden_size if whole else 0)
    elif train.method == "prompt":
        largest = trainable(model, train)
    else:
        widths = (train.rank * max(one.inputs, one.outputs) for one in model.targeted(train.target_modules))
        largest = max(widths, default=0)
    return min(trainable(model, train), max(get_capabilities().FLAT_CHUNK, largest))


def forecast_disk(
    models: list[tuple[Architecture, TrainConfig, bool]],
    gguf: Sequence[str],
    selected: Architecture,
    mlx: Sequence[str] = (),
    made_twice: Sequence[str] = (),
) -> DiskForecast:
    """Return the bytes that each stage writes.

    models: for each experiment its architecture, its train section, and whether its base must still be downloaded
    or built; gguf, mlx: the types to make of the `selected` one; made_twice: those that lie there with and
    without an importance matrix until the better is kept, one type at a time.
    """
    downloads = {id(model): int(model.parameters * model.bits / 8) for model, _, absent in models if absent}
    trained = sum(trainable(model, train) * FLOAT32_BYTES * (1 + 3 * CHECKPOINTS) for model, train, _ in models)
    fused = selected.parameters * 2
    products = sum(gguf_bytes(selected, kind) for kind in gguf if kind != "f16")
    products += max((gguf_bytes(selected, kind) for kind in made_twice), default=0)
    folders = sum(int(selected.parameters * MLXType.named(kind).bits_per_weight() / 8) for kind in mlx)
    stages = {"base": sum(downloads.values()), "train": trained, "fused": fused, "f16": fused, "gguf": products}
    stages |= {"mlx": folders}
    return DiskForecast(**stages, total=sum(stages.values()))


def gguf_bytes(model: Architecture, kind: str) -> int:
    """Return the bytes of a GGUF of this type. The head, or the embedding that is one, has a type of its own."""
    bits, head = GGUF_BITS[kind], model.vocab_size * model.hidden_size
    return int(((model.parameters - head) * bits + head * max(bits, HEAD_BITS)) / 8)


def check_disk(stages: DiskForecast, free: int, where: str) -> None:
    """Raise ResourceError when what is to be written does not fit on the disk."""
    needed = int(stages.total * DISK_MARGIN)
    if needed <= free:
        return
    parts = ", ".join(
        f"{name} {size / 1e9:.1f} GB"
        for name, size in msgspec.structs.asdict(stages).items()
        if name != "total" and size
    )
    raise ResourceError(
        f"this run needs {needed / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free",
        where=where,
        why=f"It would stop in the middle. It writes: {parts}",
        fix="Make room, ask for fewer types in package.gguf and package.mlx, or move the folder to a larger disk",
    )


@dataclass(frozen=True)
class Candidate:
    """What decides the memory of a training: a base, a `train` section, and the longest row if rows are truncated."""

    model: Architecture
    train: TrainConfig
    longest: int | None = None

    def total(self, batches: Batches, dtype_bytes: int) -> int:
        """Return the bytes at the peak."""
        return max(
            forecast_memory(self.model, self.train, batch, dtype_bytes).total
            for batch in batches(self.train, self.longest)
        )


def advice(
    model: Architecture, train: TrainConfig, batches: Batches, dtype_bytes: int, usable: int, device: str
) -> list[tuple[str, int]]:
    """Return the smallest changes until a run fits, in words, with the total bytes after each; they add up.

    A change that saves nothing is left out.

    First what costs time alone (smaller micro-batches with more accumulation, checkpointing), then a base that is
    spread over the workers, then what costs length, then what costs the base's precision. The last entry fits, or
    nothing here does. batches: the largest micro-batches of the rows under a `train` section, cut at a length if one is
    given; dtype_bytes: of an unquantized weight; device: `cpu`, `cuda` or `metal`.
    """
    changes: list[tuple[str, int]] = []
    candidate = Candidate(model, train)
    least = candidate.total(batches, dtype_bytes)
    longest = max(batch.length for batch in batches(msgspec.structs.replace(train, packing=False), None))
    for words, change in _changes(model, train, longest, device):
        changed = change(candidate)
        total = changed.total(batches, dtype_bytes)
        if total >= least:
            continue
        candidate, least = changed, total
        changes.append((words, total))
        if total <= usable:
            break
    return changes


def _changes(
    model: Architecture, train: TrainConfig, longest: int, device: str
) -> Iterator[tuple[str, Callable[[Candidate], Candidate]]]:
    """Each change in words, and as a function."""

    def training(**changed: Any) -> Callable[[Candidate], Candidate]:
        return lambda candidate: replace(candidate, train=msgspec.structs.replace(candidate.train, **changed))

    def cut(length: int) -> Callable[[Candidate], Candidate]:
        return lambda candidate: replace(candidate, longest=length)

    if train.packing:
        yield "train.packing false", training(packing=False)
    rows, accumulation = train.batch_size, train.gradient_accumulation_steps
    while rows > 1:
        smaller = (rows + 1) // 2
        accumulation = -(-rows * accumulation // smaller)
        rows = smaller
        words = f"train.batch_size {rows} with gradient_accumulation_steps {accumulation}"
        yield words, training(batch_size=rows, gradient_accumulation_steps=accumulation)
    if not train.gradient_checkpointing:
        yield "train.gradient_checkpointing true", training(gradient_checkpointing=True)
    if train.method == "full":
        yield "train.method lora", training(method="lora")
    spreads = fsdp.can_be_advised(model, train)
    if spreads:
        yield "train.fsdp true", lambda candidate: replace(candidate, train=fsdp.spread(candidate.train))
    for length in LENGTHS:
        if length < longest:
            yield f"data.max_length {length} (longer rows are cut)", cut(length)
    if not (model.quantized or train.fsdp or spreads):  # a quantized base is not spread
        words, mode = get_capabilities().four_bit_base(device)
        yield words, lambda candidate: replace(candidate, model=candidate.model.with_bits(QUANTIZED_BITS, mode))
