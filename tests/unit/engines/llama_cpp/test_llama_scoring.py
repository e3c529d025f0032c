"""A GGUF's log-probabilities are those of the model it was converted from."""

import math

import numpy as np
import pytest
from snaketune.engines.interface import LoadOptions
from snaketune.engines.llama_cpp import gguf_model
from snaketune.tokens.chat_template import Renderer

TEXTS = (
    "Once upon a time there was a little girl named Lily. She loved to play outside in the sun.",
    "Once upon a time there was a dog. " * 35,
    "Tom had a red ball. One day the ball went over the wall, and Tom was very sad.",
)


@pytest.fixture(scope="module")
def rows(stories):
    rendered = [Renderer(stories).text(text) for text in TEXTS]
    return [(row.ids, row.loss_mask) for row in rendered]


@pytest.fixture(scope="module")
def llama(stories_gguf):
    return gguf_model.open_gguf(stories_gguf, LoadOptions(context_length=512))


def test_the_perplexity_of_the_f16_file_is_within_a_percent_of_mlx_lms(rows, llama, stories):
    from snaketune.engines.mlx import language_model as mlx_scoring
    from snaketune.engines.mlx import loading as mlx_loading

    model = mlx_loading.load(stories).model
    count = sum(sum(targets) for _, targets in rows)
    theirs = math.exp(-sum(mlx_scoring.loglikelihoods(model, rows)) / count)
    ours = math.exp(-sum(gguf_model.loglikelihoods(llama, rows)) / count)
    assert ours == pytest.approx(theirs, rel=0.01)
    assert 1 < ours < 10


def test_loglikelihood_equals_log_softmax_of_llama_cpps_own_logits(rows, stories_gguf):
    from llama_cpp import Llama

    plain = Llama(str(stories_gguf), n_ctx=512, logits_all=True, verbose=False, n_threads=1)
    ids, targets = rows[1]
    assert len(ids) > 300
    plain.eval(ids)
    logits = plain.scores[: len(ids)].astype(np.float64)
    logs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    logs -= logits.max(-1, keepdims=True)
    expected = sum(logs[i - 1, ids[i]] for i in range(1, len(ids)) if targets[i])
    small = gguf_model.open_gguf(stories_gguf, LoadOptions(context_length=512))
    small.n_batch = 100  # so that the row is read in several parts
    assert next(gguf_model.loglikelihoods(small, [rows[1]])) == pytest.approx(expected, rel=1e-4)


def test_loglikelihood_does_not_depend_on_the_rows_scored_before(rows, llama):
    alone = [next(gguf_model.loglikelihoods(llama, [row])) for row in rows]
    together = list(gguf_model.loglikelihoods(llama, [*rows, *reversed(rows)]))
    assert together == pytest.approx([*alone, *reversed(alone)], rel=1e-3)


def test_loglikelihood_counts_only_masked_tokens(rows, llama):
    ids, _ = rows[0]
    none, first, both = ([i in places for i in range(len(ids))] for places in ((), (5,), (5, 9)))
    found = list(gguf_model.loglikelihoods(llama, [(ids, none), (ids, first), (ids, both)]))
    assert found[0] == 0.0 > found[1] > found[2]
