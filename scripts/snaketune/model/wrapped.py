"""What config.json says of a model's parts: text and pictures, of which the text is trained alone, and experts.

mlx-community's Gemma 3 comes as a model of text and pictures: its text weights are called `language_model.*` and its
settings stand in `text_config`, sparsely, because the wrapper has defaults of its own. The text part is trained only,
and a folder with the wrapper's configuration but without its picture weights loads nowhere else, so the text model is
treated as a model of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WRAPPER_PREFIX = "language_model."
GEMMA3_DEFAULTS = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "tie_word_embeddings": True,
}
"""What the wrapper takes where text_config says nothing: transformers' Gemma3TextConfig, mlx-lm's gemma3.py."""
WRAPPER_KEYS = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "quantization", "quantization_config")

EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


def is_mixture(config: Mapping[str, object]) -> bool:
    """Whether a config.json is that of a mixture of experts."""
    counts = (config.get(key) for key in EXPERT_COUNTS)
    return any(isinstance(count, int) and count > 1 for count in counts)


def is_wrapped(config: Mapping[str, object]) -> bool:
    """Whether a config.json is that of a Gemma 3 of text and pictures."""
    return config.get("model_type") == "gemma3" and "text_config" in config


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config.json of the text model alone; one that is not wrapped is returned as it is."""
    if not is_wrapped(config):
        return config
    shared = {key: config[key] for key in WRAPPER_KEYS if key in config}
    inner = GEMMA3_DEFAULTS | {"vocab_size": 262208} | config["text_config"] | shared
    return inner | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
