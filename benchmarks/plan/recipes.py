"""The memory that other people reported beside this project's unfitted forecast; writes the table of docs/accuracy.md.

`python benchmarks/plan/recipes.py`: pure arithmetic. Most reports leave something out (row lengths, checkpointing), so
the shape that was assumed stands in the table.
"""

from __future__ import annotations

from typing import Any

import accuracy
from snaketune.config.sections import TrainConfig, section
from snaketune.contracts.plan import BatchShape
from snaketune.plan import architecture, resources


def shape(
    kind: str, width: int, layers: int, heads: int, kv: int, head: int, inner: int, vocabulary: int, tied: bool
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": head,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
    }


MODELS = {
    "gemma-2-2b": shape("gemma2", 2304, 26, 8, 4, 256, 9216, 256000, True),
    "gemma-3-4b": shape("gemma3_text", 2560, 34, 8, 4, 256, 10240, 262208, True),
    "Llama-3.1-8B": shape("llama", 4096, 32, 32, 8, 128, 14336, 128256, False),
    "Mistral-7B": shape("mistral", 4096, 32, 32, 8, 128, 14336, 32000, False),
    "Qwen3-0.6B": shape("qwen3", 1024, 28, 16, 8, 128, 3072, 151936, True),
    "Qwen3-8B": shape("qwen3", 4096, 36, 32, 8, 128, 12288, 151936, False),
}
MLX_LM = {
    "rank": 8,
    "num_layers": 16,
    "dropout": 0.0,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
}
KEPT, HELD = {"gradient_checkpointing": True}, {"gradient_checkpointing": False}

# who reported it, model, bits, rows x length assumed, settings, reported GB
REPORTS: list[tuple[str, str, float | None, tuple[int, int], dict[str, Any], str]] = [
    (
        "Gemma-2-2B QLoRA guide, M2 16 GB",
        "gemma-2-2b",
        4.5,
        (4, 2048),
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "gradient_accumulation_steps": 4, **KEPT},
        "8 (its own sum)",
    ),
    (
        "same, rows of 256 tokens",
        "gemma-2-2b",
        4.5,
        (4, 256),
        {"gradient_accumulation_steps": 4, **KEPT},
        "< 10 wanted",
    ),
    (
        "Llama-3.1-8B tutorial, M4 Max 64 GB",
        "Llama-3.1-8B",
        None,
        (6, 2048),
        {"gradient_accumulation_steps": 3, **HELD},
        "58",
    ),
    ("same, checkpointing", "Llama-3.1-8B", None, (6, 2048), {"gradient_accumulation_steps": 3, **KEPT}, "58"),
    ("same, rows of 256 tokens", "Llama-3.1-8B", None, (6, 256), {"gradient_accumulation_steps": 3, **HELD}, "58"),
    ("Hawaiian, gemma-3-4b-it-4bit, M1 Ultra", "gemma-3-4b", 4.5, (2, 128), MLX_LM, "7.5"),
    ("same, 2,831 pairs", "gemma-3-4b", 4.5, (1, 1024), MLX_LM | KEPT, "6.1"),
    ("mlx-tune, M4 Pro", "Qwen3-0.6B", None, (1, 1024), MLX_LM | {"num_layers": None}, "2.6"),
    ("mlx-tune, M4 Pro", "Qwen3-0.6B", None, (1, 4096), MLX_LM | {"num_layers": None}, "18"),
    ("mlx-train-perf, M1 Max", "Qwen3-8B", 4.5, (1, 8192), MLX_LM | KEPT, "27.6 stock, 13.7 flash"),
    (
        "mlx-lm#236, full, 16 layers, 128 GB",
        "Qwen3-8B",
        None,
        (1, 512),
        MLX_LM | {"method": "full", **KEPT},
        "31.8-34.1",
    ),
    ("guide D, 7B LoRA rank 16: wanted", "Mistral-7B", None, (4, 256), KEPT, "16"),
    ("guide D, 7B QLoRA int4: wanted", "Mistral-7B", 4.5, (4, 256), KEPT, "8"),
]


def table() -> str:
    """Forecasts in GB: in all with this project's loss, and with the logits of every position, as mlx-lm makes them."""
    lines = [
        "| report | model | rows x tokens | weights | activations, attention | ours, in all | with all logits "
        "| reported |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for who, name, bits, (rows, length), given, reported in REPORTS:
        model = architecture.read(MODELS[name])
        model = model.with_bits(bits) if bits else model
        train = section(TrainConfig, **{"dropout": 0.1, **given})
        batch = BatchShape(rows, length, rows * length // 2)
        parts = resources.forecast_memory(model, train, batch, 2)
        plain = parts.total - parts.logits + 4 * batch.positions * model.vocab_size * 2
        held = parts.activations + parts.attention
        figures = " | ".join(f"{size / 1e9:.1f}" for size in (parts.weights, held, parts.total, plain))
        lines.append(f"| {who} | {name}{', 4-bit' if bits else ''} | {rows} x {length} | {figures} | {reported} |")
    return "\n".join(lines)


if __name__ == "__main__":
    accuracy.put("recipes", table())
