"""Shapes of a model's matrices, from its config.json alone and before any weights are read.

The decoder families that mlx-lm trains share one plan: an embedding, blocks of attention and a gated (or plain) MLP,
a head that may be the embedding again. A mixture of experts repeats the MLP. Layer names are those of mlx-lm's models,
by which `train.target_modules` picks them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from snaketune.config.sections import ModelConfig, QuantizeConfig
from snaketune.errors import ModelError
from snaketune.files import read_json
from snaketune.model.manifest import NF4, foreign_format, stored_dtype

PLAIN_MLP = {"gpt_neox", "phi", "starcoder2", "stablelm_epoch", "nemotron", "gptneox", "gpt2"}
CONVOLUTIONS = {"lfm2"}  # most blocks have a short convolution in the place of attention
FUSED_PROJECTIONS = {"phi3", "phi3small"}
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4_BLOCK = 64  # weights that share a scale, which transformers leaves as bitsandbytes has it
GIVEN = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@dataclass(frozen=True)
class Linear:
    """A matrix inside a block: `inputs` x `outputs` weights, `num_experts` of it in a mixture."""

    name: str
    inputs: int
    outputs: int
    num_experts: int = 1

    @property
    def num_params(self) -> int:
        return self.inputs * self.outputs * self.num_experts


@dataclass(frozen=True)
class Architecture:
    """A decoder's sizes, in elements.

    active_intermediate_size: width of the MLP that one token passes; bits: of a weight, or of one in the blocks where
    only these are quantized; quantization: the mode of a quantized model, else None; caps_scores: attention's scores
    go through a softcap.
    """

    model_type: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    active_intermediate_size: int
    gated: bool
    vocab_size: int
    tie_word_embeddings: bool
    linears: tuple[Linear, ...]
    bits: float
    quantization: str | None
    caps_scores: bool = False

    @property
    def quantized(self) -> bool:
        return self.quantization is not None

    @property
    def block_weights(self) -> int:
        """Weights of the matrices of one block."""
        return sum(linear.num_params for linear in self.linears)

    @property
    def embedding_weights(self) -> int:
        """Weights of the embedding, and of the head where it is a matrix of its own."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    @property
    def norm_weights(self) -> int:
        return (2 * self.num_layers + 1) * self.hidden_size

    @property
    def parameters(self) -> int:
        """All weights of the model (biases and small norms apart, under 0.1 %)."""
        return self.num_layers * self.block_weights + self.embedding_weights + self.norm_weights

    def with_bits(self, bits: float, mode: str = "affine") -> Architecture:
        """Return the same model with its matrices quantized to so many bits a weight."""
        return replace(self, bits=bits, quantization=mode)

    def dequantized(self) -> Architecture:
        """Return the same model in 16 bits."""
        return replace(self, bits=16.0, quantization=None)

    def targeted(self, targets: str | list[str]) -> tuple[Linear, ...]:
        """Return the matrices of a block that `train.target_modules` names."""
        if targets == "all-linear":
            return self.linears
        return tuple(one for one in self.linears if one.name in targets or one.name.rsplit(".", 1)[-1] in targets)


def read(config: dict[str, Any], where: str = "config.json") -> Architecture:
    """Return the architecture that a config.json describes. Raises ModelError when it names no decoder's sizes."""
    text = config.get("text_config") or config
    missing = [key for key in GIVEN if not isinstance(text.get(key), int)]
    if missing:
        raise ModelError(
            f"this is not the config.json of a decoder: {', '.join(missing)} missing",
            where=where,
            fix="Use a causal language model in Hugging Face format",
        )
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    kv_heads = text.get("num_key_value_heads") or heads
    head_size = text.get("head_dim") or hidden // heads
    model_type = text.get("model_type", "")
    experts = text.get("num_local_experts") or text.get("num_experts") or 1
    inner = text.get("moe_intermediate_size") if experts > 1 else None
    inner = inner or text.get("intermediate_size") or text.get("block_ff_dim") or 4 * hidden
    if text.get("block_auto_adjust_ff_dim"):
        inner = _adjusted_width(inner, text.get("block_ffn_dim_multiplier") or 1.0, text.get("block_multiple_of") or 1)
    gated = model_type not in PLAIN_MLP
    quantization = config.get("quantization") or config.get("quantization_config") or {}
    dtype = stored_dtype(config) or text.get("torch_dtype")
    bits = 32.0 if dtype == "float32" else 16.0
    if foreign_format(config) == NF4:
        quantization = {"bits": 4, "group_size": NF4_BLOCK, "mode": NF4}  # bitsandbytes writes none of these down
    if quantization.get("bits"):
        bits = quantized_bits(quantization["bits"], quantization.get("group_size"), quantization.get("mode"))
    # Gemma's config.json leaves out that its head is the embedding, as LFM2's does
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return Architecture(
        model_type=model_type,
        hidden_size=hidden,
        num_layers=text["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_size,
        intermediate_size=inner,
        active_intermediate_size=inner * (text.get("num_experts_per_tok") or 1 if experts > 1 else 1),
        gated=gated,
        vocab_size=text["vocab_size"],
        tie_word_embeddings=bool(tied) if tied is not None else model_type.startswith(("gemma", "lfm2")),
        linears=_linears(model_type, hidden, (heads * head_size, kv_heads * head_size), _MLP(inner, experts, gated)),
        bits=bits,
        quantization=(quantization.get("mode") or "affine") if quantization.get("bits") else None,
        caps_scores=text.get("attn_logit_softcapping") is not None,
    )


def read_base(folder: Path, quantize: QuantizeConfig | None) -> Architecture:
    """Return the architecture of a base as it will be trained, quantized if the `model` section says so."""
    found = read(read_json(folder / "config.json"), str(folder / "config.json"))
    if quantize is None:
        return found
    bits = quantized_bits(quantize.bits, quantize.group_size, quantize.mode)
    return found.with_bits(bits, quantize.mode)


def dtype_bytes(folder: Path, model: ModelConfig, device: str) -> int:
    """Return the bytes of a weight that is not quantized, as loading chooses it: float32 on a CPU, else the model's."""
    if model.dtype != "auto":
        return DTYPE_BYTES[model.dtype]
    if device == "cpu":
        return 4
    config = read_json(folder / "config.json")
    return DTYPE_BYTES.get(stored_dtype(config) or "bfloat16", 2)


def quantized_bits(bits: int, group_size: int | None = None, mode: str | None = None) -> float:
    """Return the bits of a quantized weight: 4.5 for 4-bit affine groups of 64, each with a 16-bit scale and bias."""
    per_group = 32 if (mode or "affine") in ("affine", "nf4") else 8
    return bits + per_group / (group_size or 64)


def _adjusted_width(width: int, multiplier: float, multiple_of: int) -> int:
    """The width of LFM2's MLP where config.json says that the one it gives is to be adjusted."""
    return math.ceil(int(multiplier * int(2 * width / 3)) / multiple_of) * multiple_of


class _MLP(NamedTuple):
    width: int
    experts: int
    gated: bool


def _linears(model_type: str, hidden: int, attention_widths: tuple[int, int], mlp: _MLP) -> tuple[Linear, ...]:
    """Return the matrices of a block; attention_widths: of the queries, and of the keys."""
    (queries, keys), (inner, experts, gated) = attention_widths, mlp
    if model_type in FUSED_PROJECTIONS:
        attention = [Linear("self_attn.qkv_proj", hidden, queries + 2 * keys)]
        fused = [Linear("mlp.gate_up_proj", hidden, 2 * inner), Linear("mlp.down_proj", inner, hidden)]
        return (*attention, Linear("self_attn.o_proj", queries, hidden), *fused)
    if model_type in CONVOLUTIONS:
        convolution = [Linear("conv.in_proj", hidden, 3 * hidden), Linear("conv.out_proj", hidden, hidden)]
        widening = [Linear(f"feed_forward.{name}", hidden, inner) for name in ("w1", "w3")]
        return (*convolution, *widening, Linear("feed_forward.w2", inner, hidden))
    attention = [
        Linear("self_attn.q_proj", hidden, queries),
        Linear("self_attn.k_proj", hidden, keys),
        Linear("self_attn.v_proj", hidden, keys),
        Linear("self_attn.o_proj", queries, hidden),
    ]
    if not gated:
        return (*attention, Linear("mlp.fc1", hidden, inner), Linear("mlp.fc2", inner, hidden))
    return (
        *attention,
        Linear("mlp.gate_proj", hidden, inner, experts),
        Linear("mlp.up_proj", hidden, inner, experts),
        Linear("mlp.down_proj", inner, hidden, experts),
    )
