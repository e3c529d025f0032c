"""Tokens with loss, read back as text: the responses of every turn with their end, and nothing else."""

import families
import numpy as np
import pytest
from snaketune.tokens.chat_template import Renderer
from snaketune.tokens.token_store import TokenStore, write_store
from snaketune.train.batches import MicroBatching, collate

TURNS = [
    {"role": "user", "content": "one and two"},
    {"role": "assistant", "content": "three"},
    {"role": "user", "content": "and four"},
    {"role": "assistant", "content": "nine of them"},
]


@pytest.fixture(params=["llama-bpe", "qwen3", "gemma3"])
def family(request, tmp_path):
    families.build(tmp_path / "model", request.param)
    return families.FAMILIES[request.param], Renderer(tmp_path / "model")


def text_with_loss(tmp_path, renderer, rows, **how):
    write_store(tmp_path / "s.safetensors", ((renderer.conversation(row), 1.0) for row in rows))
    store = TokenStore(tmp_path / "s.safetensors")
    batch = collate(store, np.arange(len(rows)), MicroBatching(len(rows), 10**6), **how)
    for target_position, label in zip(batch.target_positions, batch.labels, strict=True):  # each sees what comes before
        row, position = divmod(int(target_position), batch.inputs.shape[1])
        assert store.row(row)[0][position] == batch.inputs[row, position]
        assert store.row(row)[0][position + 1] == label
    return renderer.tokenizer.decode(batch.labels.tolist())


def test_response_with_its_end_has_loss_and_the_prompt_has_none(tmp_path, family):
    family, renderer = family
    text = text_with_loss(tmp_path, renderer, [TURNS[:2]])
    assert text.strip().startswith("three")
    assert text.replace("three", "").strip() == family.stop


def test_every_response_of_a_conversation_has_loss_and_no_prompt(tmp_path, family):
    family, renderer = family
    text = text_with_loss(tmp_path, renderer, [TURNS])
    assert "three" in text
    assert "nine of them" in text
    assert "one and two" not in text
    assert "and four" not in text
    assert text.count(family.stop) == 2


def test_prompts_have_loss_with_train_on_prompts(tmp_path, family):
    _, renderer = family
    text = text_with_loss(tmp_path, renderer, [TURNS], train_on_prompts=True)
    assert "one and two" in text
    assert "nine of them" in text
