"""Models of real shape, which the slow tests and the benchmarks are made with."""

import json
from pathlib import Path

import families
import full_vocabulary
import mlx.core as mx
import pytest
import real_shapes
import shaped_models
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
from sentencepiece import SentencePieceProcessor
from snaketune import files
from snaketune.plan import architecture
from snaketune.tokens.chat_template import Renderer

NARROW = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
}


def narrow(name: str) -> real_shapes.Shape:
    """A real shape made narrow, with its whole vocabulary."""
    shape = real_shapes.SHAPES[name]
    return real_shapes.Shape(shape.config | NARROW, shape.family)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("qwen3-4b", 4.02), ("gemma-2-2b", 2.61), ("llama-3.2-1b", 1.24), ("qwen-2.5-1.5b", 1.54), ("llama-3.1-8b", 8.03)],
)
def test_shape_has_as_many_weights_as_the_real_model(name: str, billions: float) -> None:
    assert real_shapes.parameters(name) / 1e9 == pytest.approx(billions, abs=0.01)
    assert architecture.read(real_shapes.SHAPES[name].config).parameters / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("qwen3-4b", None),
        pytest.param("llama-3.1-8b", 4, marks=pytest.mark.slow),
        pytest.param("gemma-2-2b", 4, marks=pytest.mark.slow),
    ],
)
def test_made_model_loads_with_its_whole_vocabulary(name: str, bits: int | None, tmp_path: Path) -> None:
    folder = shaped_models.make(narrow(name), tmp_path / "base", bits=bits)
    model, config = load_model(folder)
    weights = dict(tree_flatten(model.parameters(), destination={}))
    assert {value.dtype for value in weights.values()} == ({mx.bfloat16, mx.uint32} if bits else {mx.bfloat16})
    renderer = Renderer(folder)
    assert config["vocab_size"] - 300 < len(renderer.tokenizer) <= config["vocab_size"]
    ids = renderer.record(families.conversations(1)[0]).ids
    assert mx.all(mx.isfinite(model(mx.array([ids])))).item()
    text = "What, 1964? The river is Hawaiʻi's."
    assert renderer.decode(renderer.tokenizer.encode(text, add_special_tokens=False)) == text


def test_made_model_is_the_same_whatever_the_size_of_its_files(tmp_path: Path) -> None:
    shape = narrow("qwen-2.5-1.5b")
    whole, parts = (
        shaped_models.make(shape, tmp_path / name, shard_bytes=size) for name, size in (("a", 1 << 40), ("b", 1 << 20))
    )
    index = json.loads((parts / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert len(set(index["weight_map"].values())) > 1
    first, second = (dict(tree_flatten(load_model(path)[0].parameters(), destination={})) for path in (whole, parts))
    assert first.keys() == second.keys()
    assert all(mx.array_equal(first[name], second[name]).item() for name in first)
    assert files.sha256(whole / "tokenizer.json") == files.sha256(parts / "tokenizer.json")


def test_full_sentencepiece_vocabulary_splits_texts_alike_in_both_of_its_files(tmp_path: Path) -> None:
    shape = real_shapes.SHAPES["gemma-2-2b"]
    full_vocabulary.write(tmp_path, shape.family, 40_000)
    pieces = SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    tokenizer = Renderer(tmp_path).tokenizer
    texts = [turn["content"] for row in families.conversations(200) for turn in row["messages"]]
    assert [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts] == pieces.encode(texts)
