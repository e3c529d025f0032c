"""What the evaluation's sides are measured on: a 15 million parameter Llama with random weights, and its GGUF."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
VOCABULARY = 32_000
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 288,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "head_dim": 48,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}


def build(folder: Path) -> Path:
    """Write the model in Hugging Face format, with a tokenizer that the converter knows."""
    import mlx.core as mx
    import tiny_tokenizers
    from mlx.utils import tree_flatten, tree_map
    from mlx_lm.models.llama import Model, ModelArgs

    folder.mkdir(parents=True, exist_ok=True)
    marks = ["<|begin_of_text|>", "<|eot_id|>"]
    tiny_tokenizers.write_bpe(
        folder, split=tiny_tokenizers.LLAMA3, special=marks, begin=marks[0], end=marks[1], template=None
    )
    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(CONFIG))
    shapes = model.parameters()
    model.update(
        tree_map(lambda one: mx.random.normal(one.shape) * 0.05 if one.ndim > 1 else mx.ones(one.shape), shapes)
    )
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def convert(folder: Path, target: Path) -> Path:
    """The model as an f32 GGUF, so that both engines compute with the same numbers."""
    from snaketune.package import gguf_conversion

    gguf_conversion.convert(folder, target, name="bench", outtype="f32", threads=1)
    return target


def quantized(gguf: Path, target: Path, kind: str) -> Path:
    from snaketune.engines.llama_cpp import quantize

    quantize.quantize(gguf, target, kind, threads=1)
    return target


def prompts(count: int, shared: int = 0, seed: int = 1) -> list[list[int]]:
    """Prompts of 12 to 120 tokens, as questions are, after `shared` tokens that all have."""
    rng = np.random.default_rng(seed)
    beginning = rng.integers(10, VOCABULARY, shared).tolist()
    return [beginning + rng.integers(10, VOCABULARY, int(n)).tolist() for n in rng.integers(12, 121, count)]


def rows(count: int, seed: int = 2) -> list[tuple[list[int], list[bool]]]:
    """Questions as above with answers of 10 to 60 tokens, which are the targets."""
    rng = np.random.default_rng(seed)
    found = []
    for prompt, n in zip(prompts(count, seed=seed), rng.integers(10, 61, count), strict=True):
        answer = rng.integers(10, VOCABULARY, int(n)).tolist()
        found.append((prompt + answer, [False] * len(prompt) + [True] * len(answer)))
    return found


def run(side: str, folder: Path, threads: int) -> dict[str, object]:
    """One side in a process of its own; see sides.py."""
    command = [sys.executable, str(Path(__file__).with_name("sides.py")), side, str(folder), str(threads)]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    env = os.environ | dict.fromkeys(names, str(threads))
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])
