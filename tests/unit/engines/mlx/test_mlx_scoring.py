"""The log-probabilities of answers are those of the model called directly, however they are computed."""

import json
import math

import families
import numpy as np
import pytest
from snaketune.engines import decoding
from snaketune.engines.mlx import language_model, loading
from tools import STORIES, STORIES_MODEL

TEXTS = (
    "Once upon a time there was a little girl named Lily. She loved to play outside in the sun.",
    "Tom had a red ball. One day the ball went over the wall, and Tom was very sad.",
    "The bird sang. " * 30,
)


def direct(model, ids, targets):
    """By definition: log softmax of the model's own logits, in double precision."""
    import mlx.core as mx

    logits = np.array(model(mx.array([ids[:-1]]))[0].astype(mx.float32), np.float64)
    logs = logits - logits.max(-1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
    return sum(logs[i - 1, ids[i]] for i in range(1, len(ids)) if targets[i])


@STORIES_MODEL.needed
def test_the_perplexity_of_a_real_model_equals_mlx_lms_own_called_directly():
    from mlx_lm import load
    from snaketune.tokens.chat_template import Renderer

    renderer = Renderer(STORIES)
    rows = [renderer.text(text) for text in TEXTS]
    theirs, _ = load(str(STORIES))
    expected = sum(direct(theirs, row.ids, row.loss_mask) for row in rows)
    ours = sum(language_model.loglikelihoods(loading.load(STORIES).model, [(row.ids, row.loss_mask) for row in rows]))
    count = sum(sum(row.loss_mask) for row in rows)
    assert math.exp(-ours / count) == pytest.approx(math.exp(-expected / count), rel=1e-4)
    assert 1 < math.exp(-ours / count) < 10


@pytest.mark.parametrize("family", ["llama-bpe", "qwen3", "gemma2", "gemma3"])
def test_loglikelihood_does_not_depend_on_chunks_or_a_shared_prefix(family, tmp_path, monkeypatch):
    model = loading.load(families.build(tmp_path / "m", family)).model
    vocabulary = json.loads((tmp_path / "m" / "config.json").read_text())["vocab_size"]
    rng = np.random.default_rng(1)
    beginning = rng.integers(5, vocabulary, 90).tolist()
    rows = []
    for length in (1, 7, 150):
        ids = beginning + rng.integers(5, vocabulary, length).tolist()
        rows.append((ids, [False] * 90 + (rng.random(length) < 0.7).tolist()))
    expected = [direct(model, *row) for row in rows]
    assert list(language_model.loglikelihoods(model, rows)) == pytest.approx(expected, rel=1e-5, abs=1e-4)
    monkeypatch.setattr(language_model, "CHUNK", 32)
    assert list(language_model.loglikelihoods(model, rows)) == pytest.approx(expected, rel=1e-5, abs=1e-4)
    monkeypatch.setattr(decoding, "MIN_SHARED_PREFIX", 10_000)
    assert list(language_model.loglikelihoods(model, rows)) == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_loglikelihood_of_a_row_without_masked_tokens_is_zero(tmp_path):
    model = loading.load(families.build(tmp_path / "m", "llama-bpe")).model
    assert list(language_model.loglikelihoods(model, [([1, 2, 3], [False] * 3)])) == [0.0]
