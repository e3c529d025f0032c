"""Texts of the same meaning lie near each other, whatever model embeds them."""

import pytest
from snaketune.engines.llama_cpp import gguf_model
from snaketune.errors import ModelError


def test_similarity_is_one_for_the_same_text_and_less_for_another(stories_gguf):
    pairs = [("The dog ran.", "The dog ran."), ("The dog ran.", "Lily ate an apple with her mom."), ("", "a")]
    same, other, empty = gguf_model.similarities(stories_gguf, pairs)
    assert same == pytest.approx(1, abs=1e-6)
    assert -1 <= other < 0.999
    assert -1 <= empty <= 1


def test_a_file_that_is_no_model_is_refused_by_its_key(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"no model")
    with pytest.raises(ModelError) as caught:
        gguf_model.similarities(tmp_path / "x.gguf", [("a", "b")])
    assert caught.value.where == "evaluate.similarity"
