"""The shapes of five real models: their config.json and the names and sizes of their tensors.

Tensors have the names of Hugging Face's files, in the order in which such files hold them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A model's config.json without its tokens, and the family of `tests/families.py` whose tokenizer it has."""

    config: dict[str, Any]
    family: str

    def with_layers(self, count: int) -> Shape:
        """The same with so many blocks."""
        return Shape(self.config | {"num_hidden_layers": count}, self.family)


def config_of(architecture: str, kind: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    """What config.json says of every architecture here.

    sizes: width, inner width, layers, heads, key-value heads, width of a head.
    """
    hidden, inner, layers, heads, kv_heads, head_dim = sizes
    return {
        "architectures": [architecture],
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }


def _config(architecture: str, kind: str, sizes: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """sizes: as of `config_of`, and the vocabulary."""
    own = {"vocab_size": sizes[-1], "tie_word_embeddings": True, "torch_dtype": "bfloat16"}
    return config_of(architecture, kind, sizes[:-1]) | own | more


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA3 = {"max_position_embeddings": 131072, "rope_theta": 500000.0, "rms_norm_eps": 1e-5}
SHAPES = {
    "llama-3.2-1b": Shape(
        _config(
            "LlamaForCausalLM",
            "llama",
            (2048, 8192, 16, 32, 8, 64, 128256),
            **LLAMA3,
            rope_scaling=LLAMA3_ROPE | {"factor": 32.0},
        ),
        "llama-bpe",
    ),
    "qwen-2.5-1.5b": Shape(
        _config(
            "Qwen2ForCausalLM",
            "qwen2",
            (1536, 8960, 28, 12, 2, 128, 151936),
            max_position_embeddings=32768,
            rope_theta=1000000.0,
            attention_bias=True,
        ),
        "qwen2",
    ),
    "gemma-2-2b": Shape(
        _config(
            "Gemma2ForCausalLM",
            "gemma2",
            (2304, 9216, 26, 8, 4, 256, 256000),
            max_position_embeddings=8192,
            rope_theta=10000.0,
            hidden_act="gelu_pytorch_tanh",
            hidden_activation="gelu_pytorch_tanh",
            attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0,
            query_pre_attn_scalar=256,
            sliding_window=4096,
        ),
        "gemma2",
    ),
    "qwen3-4b": Shape(
        _config(
            "Qwen3ForCausalLM",
            "qwen3",
            (2560, 9728, 36, 32, 8, 128, 151936),
            max_position_embeddings=40960,
            rope_theta=1000000.0,
        ),
        "qwen3",
    ),
    "llama-3.1-8b": Shape(
        _config(
            "LlamaForCausalLM",
            "llama",
            (4096, 14336, 32, 32, 8, 128, 128256),
            **LLAMA3,
            tie_word_embeddings=False,
            rope_scaling=LLAMA3_ROPE,
        ),
        "llama-bpe",
    ),
}


def parameters(name: str) -> int:
    """Weights of a shape."""
    return sum(math.prod(shape) for _, shape in tensors(SHAPES[name].config))


def tensors(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor of a model with this config.json; a matrix is (outputs, inputs)."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in _block(config):
            yield f"model.layers.{layer}.{name}", shape
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocabulary, hidden)


def _block(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    kind = config["model_type"]
    yield "input_layernorm.weight", (hidden,)
    for name, outputs in (("q", queries), ("k", keys), ("v", keys)):
        yield f"self_attn.{name}_proj.weight", (outputs, hidden)
        if config["attention_bias"]:
            yield f"self_attn.{name}_proj.bias", (outputs,)
    if kind == "qwen3":
        yield "self_attn.q_norm.weight", (head,)
        yield "self_attn.k_norm.weight", (head,)
    yield "self_attn.o_proj.weight", (hidden, queries)
    yield "post_attention_layernorm.weight", (hidden,)
    if kind == "gemma2":
        yield "pre_feedforward_layernorm.weight", (hidden,)
        yield "post_feedforward_layernorm.weight", (hidden,)
    yield "mlp.gate_proj.weight", (inner, hidden)
    yield "mlp.up_proj.weight", (inner, hidden)
    yield "mlp.down_proj.weight", (hidden, inner)
