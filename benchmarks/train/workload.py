"""The same work for every side: a 15 M-parameter Llama with random weights, and 2,000 rows as long as Alpaca's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

VOCABULARY = 32_000
LONGEST = 512
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 288,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "head_dim": 48,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
LORA = {"rank": 8, "scale": 20.0, "dropout": 0.0}
RATE = 1e-4
BATCH = 4
ORDER = 5  # a seed for the order of batches whose first dozen pad as the whole does (1.85 positions per token)


def rows(count: int = 2000, seed: int = 0) -> list[tuple[list[int], int]]:
    """(ids, length of the prompt) of each row; a mean of 114 tokens, 58 % of them the answer's."""
    random = np.random.default_rng(seed)
    lengths = np.clip(random.lognormal(4.57, 0.62, count).astype(int), 24, LONGEST)
    prompts = np.maximum(2, (lengths * random.uniform(0.25, 0.6, count)).astype(int))
    return [
        (random.integers(3, VOCABULARY, length).tolist(), int(prompt))
        for length, prompt in zip(lengths, prompts, strict=True)
    ]


def write_model(folder: Path) -> None:
    """The model in Hugging Face format, with normal weights of standard deviation 0.02."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(1)
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes = {"model.embed_tokens.weight": (VOCABULARY, hidden), "model.norm.weight": (hidden,)}
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{one}_proj.weight": (hidden, hidden) for one in "qkvo"}
        shapes |= {f"{at}.mlp.{one}_proj.weight": (inner, hidden) for one in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (hidden, inner)}
        shapes |= {f"{at}.{one}_layernorm.weight": (hidden,) for one in ("input", "post_attention")}
    weights = {
        name: np.ones(shape, np.float32)
        if len(shape) == 1
        else (0.02 * random.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))
