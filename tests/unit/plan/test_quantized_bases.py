"""A base that another library has quantized: taken where its weights are read rightly, else refused before training."""

from __future__ import annotations

import json

import pytest
from snaketune.engines import get_capabilities
from snaketune.engines.torch import nf4
from snaketune.errors import ModelError
from snaketune.plan import architecture
from transformers import BitsAndBytesConfig

Config = dict[str, object]
BASE: Config = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 512,
    "torch_dtype": "bfloat16",
}


def quantized(**settings: object) -> Config:
    """The config.json of a base that transformers has quantized with bitsandbytes."""
    written = BitsAndBytesConfig(**settings).to_dict()
    return {**BASE, "quantization_config": json.loads(json.dumps(written))}


PLAIN = quantized(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="bfloat16")
OTHERS = {
    "nf4 of bitsandbytes with double quantization": quantized(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    ),
    "fp4 of bitsandbytes": quantized(load_in_4bit=True),
    "8 bits of bitsandbytes": quantized(load_in_8bit=True),
    "nf4 of bitsandbytes stored as bfloat16": quantized(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_quant_storage="bfloat16"
    ),
}


@pytest.mark.parametrize("engine", ["mlx", "torch"])
@pytest.mark.parametrize("stored", OTHERS)
def test_base_of_bitsandbytes_that_would_be_read_wrongly_is_refused_with_its_format(stored: str, engine: str) -> None:
    with pytest.raises(ModelError, match=f"cannot read a base that is quantized to {stored}") as refused:
        get_capabilities(engine).check_fusable(OTHERS[stored], "the/base")
    assert refused.value.where == "the/base"
    assert "ame the base that is not quantized" in refused.value.fix
    assert "Set engine" not in refused.value.fix


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_torch_refuses_what_would_be_merged_as_it_is_stored(method: str) -> None:
    config: Config = {**BASE, "quantization_config": {"quant_method": method, "bits": 4}}
    with pytest.raises(ModelError, match=f"quantized to {method}"):
        get_capabilities("torch").check_fusable(config, "base")


@pytest.mark.parametrize(
    "config", [PLAIN, {**BASE, "quantization_config": nf4._settings()}], ids=["of transformers", "of our own"]
)
def test_plain_nf4_is_read_by_torch_and_mlx_refuses_it_in_favor_of_torch(config: Config) -> None:
    assert nf4.is_nf4(config)
    get_capabilities("torch").check_fusable(config, "base")
    with pytest.raises(ModelError, match="Set engine: torch, which reads it"):
        get_capabilities("mlx").check_fusable(config, "base")


@pytest.mark.parametrize("engine", ["mlx", "torch"])
@pytest.mark.parametrize("quantization", [None, {"bits": 4, "group_size": 64}])
def test_bases_of_mlx_and_those_that_are_not_quantized_are_taken_by_both(
    quantization: Config | None, engine: str
) -> None:
    both = {"quantization": quantization, "quantization_config": quantization} if quantization else {}
    get_capabilities(engine).check_fusable({**BASE, **both}, "base")


def test_base_in_nf4_is_counted_with_four_bits_a_weight_and_half_a_bit_of_scale() -> None:
    found = architecture.read(PLAIN)
    assert (found.bits, found.quantization) == (4.5, "nf4")
