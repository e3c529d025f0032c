"""Tokens are drawn as the settings say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.engines.decoding import Sampling, apply_repetition_penalty, row_seed, sample_token

LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))


def drawn(sampling, times=4000, logits=LOGITS, before=()):
    rng = np.random.default_rng(1)
    counts = np.bincount([sample_token(logits, before, sampling, rng) for _ in range(times)], minlength=len(logits))
    return counts / times


def test_temperature_0_takes_the_likeliest():
    assert drawn(Sampling(), 10)[0] == 1


def test_tokens_are_drawn_as_often_as_they_are_likely():
    assert drawn(Sampling(temperature=1)) == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.03)


def test_a_low_temperature_sharpens():
    sharp = np.array([0.5, 0.25, 0.15, 0.1]) ** 2
    assert drawn(Sampling(temperature=0.5)) == pytest.approx(sharp / sharp.sum(), abs=0.03)


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, 1), (0.51, 2), (0.75, 2), (0.9, 3), (1.0, 4)])
def test_top_p_keeps_the_fewest_tokens_that_share_so_much(top_p, kept):
    assert (drawn(Sampling(temperature=1, top_p=top_p)) > 0).sum() == kept


def test_top_k_keeps_so_many_and_top_p_is_a_share_of_them():
    assert (drawn(Sampling(temperature=1, top_k=2)) > 0).sum() == 2
    assert (drawn(Sampling(temperature=1, top_k=2, top_p=0.66)) > 0).sum() == 1


@given(st.lists(st.integers(0, 3)), st.floats(1, 5))
def test_a_penalty_weakens_exactly_the_tokens_used(before, penalty):
    logits = np.array([-1.0, 2.0, 0.5, -3.0])
    after = apply_repetition_penalty(logits, before, penalty)
    assert all(after[i] <= logits[i] for i in set(before))
    assert all(after[i] == logits[i] for i in range(4) if i not in before)


def test_only_the_last_tokens_count_as_just_used():
    sampling = Sampling(repetition_penalty=100.0, repetition_context=2)
    logits = np.array([3.0, 2.0, 1.0])
    rng = np.random.default_rng(0)
    assert sample_token(logits, [0, 1, 1], sampling, rng) == 0
    assert sample_token(logits, [1, 0], sampling, rng) == 2


def test_a_rows_seed_follows_from_the_runs_seed_and_its_name():
    assert row_seed(1, "a") == row_seed(1, "a")
    assert len({row_seed(s, n) for s in (1, 2) for n in ("a", "b")}) == 4
