"""Which rows are looked at, their exchanged questions, and when the first rows decide."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from snaketune.pilot import criteria, scored_rows
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.token_store import TokenStore, write_store


def stored(path, pairs):
    """A store of rows of a question's ids and an answer's."""
    rows = [(Rendered([*q, *a], [False] * len(q) + [True] * len(a)), 1.0) for q, a in pairs]
    write_store(path, rows)
    return TokenStore(path)


IDS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(pairs=st.lists(st.tuples(IDS.map(lambda ids: [0, *ids]), IDS), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_every_answer_is_kept_and_only_its_question_is_another_rows(tmp_path_factory, pairs, seed):
    store = stored(tmp_path_factory.mktemp("store") / "s", pairs)
    known = {(tuple(q), tuple(a)) for q, a in pairs}
    for swap in scored_rows.swapped_pairs(store, np.arange(len(store)), seed):
        parts = []
        for request in (swap.own_prompt, swap.other_prompt):
            ids, mask = np.array(request.ids), np.array(request.loss_mask)
            parts.append((tuple(ids[~mask].tolist()), tuple(ids[mask].tolist())))
            assert mask.sum() == swap.num_target_tokens
        own, other = parts
        assert own in known
        assert own[1] == other[1]
        assert own[0] != other[0]
        assert any(question == other[0] and answer != own[1] for question, answer in known)


def test_rows_that_all_have_one_answer_cannot_be_exchanged(tmp_path):
    store = stored(tmp_path / "s", [([0, number], [7, 8]) for number in range(1, 9)])
    assert scored_rows.swapped_pairs(store, np.arange(8), 1) == []


def test_plain_text_has_no_question(tmp_path):
    write_store(tmp_path / "s", [(Rendered([1, 2, 3], [False, True, True]), 1.0)])
    assert scored_rows.split_exchange(TokenStore(tmp_path / "s"), 0) is None


def test_of_several_turns_the_first_question_and_its_answer_are_taken(tmp_path):
    ids = list(range(10))
    trained = [False, False, False, True, True, False, False, True, True, True]
    write_store(tmp_path / "s", [(Rendered(ids, trained), 1.0)])
    question, answer = scored_rows.split_exchange(TokenStore(tmp_path / "s"), 0)
    assert question.tolist() == [0, 1, 2]
    assert answer.tolist() == [3, 4]


@given(count=st.integers(1, 150), length=st.integers(3, 30), tokens=st.integers(1, 9000))
def test_looks_share_no_row_and_a_larger_model_has_fewer_in_the_first(tmp_path_factory, count, length, tokens):
    store = stored(tmp_path_factory.mktemp("store") / "s", [([0, n], [7] * (length - 2)) for n in range(count)])
    sizes = []
    for parameters in (scored_rows.WORK / tokens, 3 * scored_rows.WORK / tokens):
        found = scored_rows.looks(store, parameters, 1)
        rows = np.concatenate(found)
        assert len(set(rows.tolist())) == len(rows) == min(count, scored_rows.SCORED_ROWS)
        assert len(found[0]) >= min(count, scored_rows.FEWEST_ROWS)
        assert len(found[0]) * length <= tokens or len(found[0]) <= scored_rows.FEWEST_ROWS
        sizes.append(len(found[0]))
    assert sizes[1] <= sizes[0]


def test_sample_is_smaller_for_a_large_model_unless_a_person_has_said_how_large():
    every, few, more = np.arange(128), np.arange(24), np.arange(40)
    assert scored_rows.sample_size(None, [every]) == 16
    assert scored_rows.sample_size(None, [few, every]) == 8
    assert scored_rows.sample_size(None, [more, every]) == 13
    for wanted in (0, 5, 40):
        assert scored_rows.sample_size(wanted, [few, every]) == wanted


def test_rows_decide_where_their_interval_is_on_one_side_of_nothing():
    sizes, draw = np.full(24, 5), np.random.default_rng(2)
    noise = draw.normal(size=24)
    assert criteria.is_clear_of_zero(5 + noise, sizes, 1, 0.95)
    assert criteria.is_clear_of_zero(noise - 5, sizes, 1, 0.95)
    assert not criteria.is_clear_of_zero(noise - noise.mean(), sizes, 1, 0.95)
    assert not criteria.is_clear_of_zero(np.zeros(24), sizes, 1, 0.95)
    assert not criteria.is_clear_of_zero(5 + noise[:7], sizes[:7], 1, 0.95)  # too few for an interval
    assert criteria.is_clear_of_zero(np.full(24, np.nan), sizes, 1, 0.95)  # no row makes a number of that
    assert criteria.is_clear_of_zero(np.zeros(0), np.zeros(0), 1, 0.95)  # plain text has no prompts in any row


def share_that_passes(trials, confidence):
    """Simulated pilots whose gain is 0 in the mean of all rows, of which the first 24 may decide."""
    draw, passed = np.random.default_rng(4), 0
    for trial in range(trials):
        gains, sizes = draw.normal(size=128) * 3, draw.integers(5, 15, 128)
        first = gains[:24], sizes[:24]
        looked = first if criteria.is_clear_of_zero(*first, trial, confidence) else (gains, sizes)
        passed += criteria.interval(*looked, trial, confidence)[1] > 0
    return passed / trials


def test_a_pilot_without_a_gain_passes_no_more_often_for_being_looked_at_twice(monkeypatch):
    monkeypatch.setattr(criteria, "RESAMPLES", 400)
    twice, once = (share_that_passes(600, criteria.confidence_of_each(looks)) for looks in (2, 1))
    assert twice < 0.8 * once  # of the same pilots; half is meant


def test_confidence_of_each_look_is_said_where_there_are_two_and_nowhere_else():
    base, sizes = np.random.default_rng(5).normal(size=24), np.full(24, 5)
    once = criteria.validation_better_than_base(base, base + 1, sizes, 1)
    twice = criteria.validation_better_than_base(base, base + 1, sizes, 1, criteria.confidence_of_each(2))
    assert "confidence" not in once.message
    assert twice.message.endswith("with 97.5% confidence")
    noisy = base + np.random.default_rng(6).normal(size=24)
    narrow, wide = (criteria.interval(noisy, sizes, 1, criteria.confidence_of_each(looks)) for looks in (1, 2))
    assert wide[1] < narrow[1] < narrow[2] < wide[2]
