"""What is trained, read back as text: the answers with their end, of every turn, and nothing else."""

import families
import numpy as np
import pytest
from snaketune.tokens.chat_template import Renderer
from snaketune.tokens.token_store import TokenStore, write_store
from snaketune.train.batches import Cutting, gather

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


def trained_text(tmp_path, renderer, rows, **how):
    write_store(tmp_path / "s.safetensors", ((renderer.conversation(row), 1.0) for row in rows))
    store = TokenStore(tmp_path / "s.safetensors")
    batch = gather(store, np.arange(len(rows)), Cutting(len(rows), 10**6), **how)
    for place, target in zip(batch.places, batch.targets, strict=True):  # each place sees exactly what comes before
        row, at = divmod(int(place), batch.inputs.shape[1])
        assert store.row(row)[0][at] == batch.inputs[row, at]
        assert store.row(row)[0][at + 1] == target
    return renderer.tokenizer.decode(batch.targets.tolist())


def test_a_prompt_is_not_trained_and_an_answer_is_with_its_end(tmp_path, family):
    family, renderer = family
    text = trained_text(tmp_path, renderer, [TURNS[:2]])
    assert text.strip().startswith("three")
    assert text.replace("three", "").strip() == family.stop


def test_of_many_turns_every_answer_is_trained_and_no_question(tmp_path, family):
    family, renderer = family
    text = trained_text(tmp_path, renderer, [TURNS])
    assert "three" in text
    assert "nine of them" in text
    assert "one and two" not in text
    assert "and four" not in text
    assert text.count(family.stop) == 2


def test_prompts_are_trained_where_that_is_asked_for(tmp_path, family):
    _, renderer = family
    text = trained_text(tmp_path, renderer, [TURNS], prompts=True)
    assert "one and two" in text
    assert "nine of them" in text
