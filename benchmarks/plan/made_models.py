"""Random models and rows to measure with: what a training holds and takes does not depend on what it learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from snaketune.files import write_json
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.token_store import write_store

SIZES: dict[str, dict[str, int]] = {
    "6M": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "intermediate_size": 704,
        "num_attention_heads": 8,
        "vocab_size": 8192,
    },
    "32M": {
        "hidden_size": 512,
        "num_hidden_layers": 6,
        "intermediate_size": 1408,
        "num_attention_heads": 8,
        "vocab_size": 32000,
    },
}


def config_of(size: str) -> dict[str, Any]:
    """config.json of a llama of this size."""
    shape = SIZES[size]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_key_value_heads": shape["num_attention_heads"] // 2,
        "head_dim": shape["hidden_size"] // shape["num_attention_heads"],
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **shape,
    }


def write_model(folder: Path, size: str, quantize: dict[str, Any] | None = None) -> None:
    """A random llama in Hugging Face format, quantized if asked for."""
    import mlx.core as mx
    import mlx.nn as nn
    import snaketune.engines.mlx  # noqa: F401  a fast BLAS first
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama

    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(size)
    mx.random.seed(0)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    if quantize:
        nn.quantize(model, group_size=quantize["group_size"], bits=quantize["bits"])
        config["quantization"] = quantize
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
    write_json(folder / "config.json", config)


def trained(train: Path, valid: Path, manifest: Path, settings: dict[str, Any], rows: int | None = None) -> Any:
    """What one_training.py says of a training on one thread: {"timing", "lines"}."""
    arguments = [train, valid, manifest, json.dumps(settings | {"dtype": "auto", "seed": 1}), rows or "all"]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("one_training.py")), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout)


def write_rows(path: Path, rows: int, length: int, vocabulary: int, answer_share: float = 0.5) -> None:
    """A token store of random rows of one length, the last share of each trained."""
    source = np.random.default_rng(0)
    question = length - int(length * answer_share)
    trained = [False] * question + [True] * (length - question)
    write_store(path, ((Rendered(source.integers(0, vocabulary, length).tolist(), trained), 1.0) for _ in range(rows)))
