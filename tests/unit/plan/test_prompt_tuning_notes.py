"""What the plan says of prompt tuning: what the untied head costs, which bases are refused, a learning rate too low."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from real_shapes import SHAPES
from snaketune.errors import ModelError
from snaketune.plan import architecture, prompt_tuning, resources
from snaketune.plan.architecture import Architecture

PROMPT = tiny_models.train_config(method="prompt", num_virtual_tokens=20, learning_rate=0.01)


def model(name: str) -> Architecture:
    return architecture.read(SHAPES[name].config)


def test_the_untied_head_of_a_tied_base_is_counted_in_every_file() -> None:
    (said,) = prompt_tuning.notes(model("llama-3.2-1b"), PROMPT, ["f16", "q8_0", "q4_k_m"])
    head = 128256 * 2048
    assert f"f16 by {2 * head / 1e9:.2g} GB (21%)" in said
    assert f"q8_0 by {8.5 / 8 * head / 1e9:.2g} GB" in said
    assert "q4_k_m by" in said


def test_an_untied_base_costs_nothing_more() -> None:
    assert prompt_tuning.notes(model("llama-3.1-8b"), PROMPT, ["q8_0"]) == []
    tuned = prompt_tuning.deployed(model("llama-3.1-8b"), 20)
    assert tuned.parameters == model("llama-3.1-8b").parameters + 2 * 20 * 4096


def test_a_learning_rate_of_lora_is_said_to_be_low() -> None:
    low = tiny_models.train_config(method="prompt", learning_rate=2e-4)
    assert "learning_rate 0.0002 is low" in prompt_tuning.notes(model("llama-3.1-8b"), low, [])[0]
    assert prompt_tuning.notes(model("llama-3.1-8b"), tiny_models.train_config(learning_rate=2e-4), []) == []


def test_a_base_whose_head_llama_cpp_takes_for_its_embedding_is_refused() -> None:
    with pytest.raises(ModelError, match="models of the type gemma2") as error:
        prompt_tuning.check(model("gemma-2-2b"), Path("base"))
    assert "llama.cpp takes its embedding for the head" in str(error.value)
    prompt_tuning.check(model("llama-3.1-8b"), Path("base"))


def test_only_the_vectors_are_counted_as_trained() -> None:
    assert resources.trainable(model("llama-3.2-1b"), PROMPT) == 20 * 2048
    all_layers = tiny_models.train_config(method="prompt", num_layers=2)
    assert resources.trained_layers(model("llama-3.2-1b"), all_layers) == 16
