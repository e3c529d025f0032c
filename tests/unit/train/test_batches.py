"""Which rows make which update, and how they are cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snaketune.errors import TrainingError
from snaketune.train.batches import Cutting, Visits

LENGTHS = st.lists(st.integers(2, 400), min_size=1, max_size=60).map(np.array)


def visited(visits):
    return np.concatenate([visits.rows(update) for update in range(1, visits.updates + 1)])


@given(LENGTHS, st.integers(1, 20), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_each_row_is_seen_once_an_epoch_whatever_the_batch(lengths, rows_per_update, epochs, seed):
    visits = Visits(lengths, np.ones(len(lengths)), rows_per_update=rows_per_update, seed=seed, epochs=epochs)
    counts = np.bincount(visited(visits), minlength=len(lengths))
    assert (counts == epochs).all()
    assert (visits.times(visits.updates) == counts).all()
    assert visits.epoch(visits.updates) == pytest.approx(epochs)


@given(LENGTHS, st.sampled_from([0.1, 0.5, 0.75, 1.0, 2.0, 2.5]), st.sampled_from([0.5, 1, 2, 3.5]))
@settings(max_examples=60, deadline=None)
def test_a_weight_says_how_often_an_epoch_shows_a_row(lengths, weight, epochs):
    weights = np.full(len(lengths), weight)
    try:
        visits = Visits(lengths, weights, rows_per_update=3, seed=1, epochs=epochs)
    except TrainingError:
        assert weight * epochs * len(lengths) < 1
        return
    counts = np.bincount(visited(visits), minlength=len(lengths))
    assert counts.max() - counts.min() <= 1
    assert abs(counts.sum() - weight * epochs * len(lengths)) <= 1
    if weight * epochs == int(weight * epochs):
        assert (counts == weight * epochs).all()


def test_of_a_source_of_weight_one_half_one_half_comes_in_the_first_epoch_and_the_other_in_the_second():
    visits = Visits(np.full(40, 9), np.full(40, 0.5), rows_per_update=20, seed=3, epochs=2)
    first, second = set(visits.rows(1).tolist()), set(visits.rows(2).tolist())
    assert len(first) == len(second) == 20
    assert not first & second


@given(LENGTHS, st.integers(1, 9), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_a_run_of_so_many_updates_has_full_updates_throughout(lengths, rows_per_update, updates):
    visits = Visits(lengths, np.ones(len(lengths)), rows_per_update=rows_per_update, seed=0, updates=updates)
    assert visits.updates == updates
    assert all(len(visits.rows(update)) == rows_per_update for update in range(1, updates + 1))
    counts = visits.times(updates)
    assert counts.sum() == updates * rows_per_update
    assert counts.max() - counts.min() <= 1


@given(st.permutations(range(1, 16)))
@settings(max_examples=20, deadline=None)
def test_an_update_has_the_same_rows_in_whatever_order_one_asks(asked):
    def make():
        return Visits(np.arange(2, 42), np.ones(40), rows_per_update=8, seed=5, epochs=3)

    straight, jumping = make(), make()
    in_order = {update: straight.rows(update).tolist() for update in range(1, 16)}
    assert all(jumping.rows(update).tolist() == in_order[update] for update in asked)


def test_another_seed_gives_another_order():
    lengths, weights = np.arange(2, 200), np.ones(198)
    first, second = (Visits(lengths, weights, rows_per_update=198, seed=seed, epochs=1).rows(1) for seed in (1, 2))
    assert first.tolist() != second.tolist()


@given(LENGTHS, st.integers(1, 9), st.integers(1, 2000), st.integers(1, 32), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_cut_keeps_every_row_and_both_limits(lengths, rows, positions, multiple, packed):
    cutting = Cutting(rows, positions, multiple, packed=packed)
    parts = cutting.cut(np.arange(len(lengths)), lengths)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    for part in parts:
        sequences, width = cutting.shape(lengths[part])
        assert len(part) <= rows
        assert len(part) == 1 or sequences * width <= positions


def test_no_row_at_all_is_said_so():
    with pytest.raises(TrainingError, match="no row to train on"):
        Visits(np.array([], int), np.array([]), rows_per_update=4, seed=1, epochs=1)


def test_weights_of_nought_leave_no_row_to_train_on():
    with pytest.raises(TrainingError, match="no row to train on"):
        Visits(np.array([3, 4]), np.zeros(2), rows_per_update=4, seed=1, epochs=1)


def test_padding_stays_under_a_twentieth_at_batch_four_on_lengths_like_alpacas():
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(4.57, 0.63, 2000).astype(int), 20, 825)
    visits = Visits(lengths, np.ones(2000), rows_per_update=4, seed=1, epochs=1)
    cutting = Cutting(4, 4 * 825)
    positions = sum(
        len(part) * lengths[part].max()
        for update in range(1, visits.updates + 1)
        for part in cutting.cut(visits.rows(update), lengths)
    )
    assert positions / lengths.sum() <= 1.05
