"""What a model is made of, from its config.json."""

from __future__ import annotations

import json
import struct
from math import prod

import pytest
from snaketune.errors import ModelError
from snaketune.plan import architecture, resources
from tiny_models import train_config
from tools import STORIES, STORIES_MODEL

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
GEMMA2_2B = {
    "model_type": "gemma2",
    "hidden_size": 2304,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "intermediate_size": 9216,
    "vocab_size": 256000,
    "quantization": {"bits": 4, "group_size": 64},
}
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}
LFM2_1B = {
    "model_type": "lfm2",
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "block_ff_dim": 12288,
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 256,
    "vocab_size": 65536,
}


@pytest.mark.parametrize(
    ("config", "billions"),
    [(LLAMA_8B, 8.03), (GEMMA2_2B, 2.61), (QWEN3_30B_A3B, 30.5)],
)
def test_published_parameter_counts_come_out(config, billions):
    assert architecture.read(config).parameters / 1e9 == pytest.approx(billions, rel=0.005)


def test_blocks_of_an_lfm2_are_counted_as_its_convolutions_which_most_of_them_are():
    found = architecture.read(LFM2_1B)
    assert found.intermediate_size == 8192
    assert found.parameters / 1e9 == pytest.approx(1.17, rel=0.05)
    assert {linear.name.split(".")[0] for linear in found.linears} == {"conv", "feed_forward"}


def test_an_adapter_of_rank_16_on_all_layers_of_an_8b_llama_has_its_published_41_9_million_weights():
    assert resources.trainable(architecture.read(LLAMA_8B), train_config(rank=16)) == 41_943_040


def test_the_count_is_that_of_the_weights_on_disk():
    STORIES_MODEL.require()
    with open(STORIES / "model.safetensors", "rb") as weights:
        header = json.loads(weights.read(struct.unpack("<Q", weights.read(8))[0]))
    stored = sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    assert architecture.read(json.loads((STORIES / "config.json").read_text())).parameters == stored


def test_a_quantized_weight_takes_its_bits_and_its_share_of_scale_and_bias():
    assert architecture.read(GEMMA2_2B).bits == 4.5
    assert architecture.read({**LLAMA_8B, "quantization": {"bits": 8, "group_size": 32}}).bits == 9


def test_a_text_model_inside_a_wrapper_is_found():
    wrapped = {"model_type": "gemma3", "text_config": {**GEMMA2_2B, "model_type": "gemma3_text"}}
    assert architecture.read(wrapped).parameters == architecture.read(GEMMA2_2B).parameters


def test_named_targets_are_matched_by_their_last_word():
    model = architecture.read(LLAMA_8B)
    assert [one.name for one in model.targeted(["q_proj", "self_attn.v_proj"])] == [
        "self_attn.q_proj",
        "self_attn.v_proj",
    ]


def test_what_is_no_decoder_is_refused():
    with pytest.raises(ModelError, match="hidden_size"):
        architecture.read({"model_type": "resnet"})
