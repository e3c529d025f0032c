"""Which rows make up which step, and how they are split into micro-batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snaketune.errors import TrainingError
from snaketune.train.batches import EpochSampler, MicroBatching

LENGTHS = st.lists(st.integers(2, 400), min_size=1, max_size=60).map(np.array)


def visited(sampler):
    return np.concatenate([sampler.rows(step) for step in range(1, sampler.num_steps + 1)])


@given(LENGTHS, st.integers(1, 20), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_each_row_is_visited_once_an_epoch_for_any_batch_size(lengths, rows_per_step, epochs, seed):
    sampler = EpochSampler(lengths, np.ones(len(lengths)), rows_per_step=rows_per_step, seed=seed, epochs=epochs)
    counts = np.bincount(visited(sampler), minlength=len(lengths))
    assert (counts == epochs).all()
    assert (sampler.visit_counts(sampler.num_steps) == counts).all()
    assert sampler.epoch(sampler.num_steps) == pytest.approx(epochs)


@given(LENGTHS, st.sampled_from([0.1, 0.5, 0.75, 1.0, 2.0, 2.5]), st.sampled_from([0.5, 1, 2, 3.5]))
@settings(max_examples=60, deadline=None)
def test_weight_is_how_often_an_epoch_visits_a_row(lengths, weight, epochs):
    weights = np.full(len(lengths), weight)
    try:
        sampler = EpochSampler(lengths, weights, rows_per_step=3, seed=1, epochs=epochs)
    except TrainingError:
        assert weight * epochs * len(lengths) < 1
        return
    counts = np.bincount(visited(sampler), minlength=len(lengths))
    assert counts.max() - counts.min() <= 1
    assert abs(counts.sum() - weight * epochs * len(lengths)) <= 1
    if weight * epochs == int(weight * epochs):
        assert (counts == weight * epochs).all()


def test_rows_of_weight_one_half_are_visited_in_every_other_epoch():
    sampler = EpochSampler(np.full(40, 9), np.full(40, 0.5), rows_per_step=20, seed=3, epochs=2)
    first, second = set(sampler.rows(1).tolist()), set(sampler.rows(2).tolist())
    assert len(first) == len(second) == 20
    assert not first & second


@given(LENGTHS, st.integers(1, 9), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_max_steps_makes_so_many_full_steps(lengths, rows_per_step, steps):
    sampler = EpochSampler(lengths, np.ones(len(lengths)), rows_per_step=rows_per_step, seed=0, max_steps=steps)
    assert sampler.num_steps == steps
    assert all(len(sampler.rows(step)) == rows_per_step for step in range(1, steps + 1))
    counts = sampler.visit_counts(steps)
    assert counts.sum() == steps * rows_per_step
    assert counts.max() - counts.min() <= 1


@given(st.permutations(range(1, 16)))
@settings(max_examples=20, deadline=None)
def test_step_has_the_same_rows_in_whatever_order_steps_are_read(steps):
    def make():
        return EpochSampler(np.arange(2, 42), np.ones(40), rows_per_step=8, seed=5, epochs=3)

    straight, jumping = make(), make()
    in_order = {step: straight.rows(step).tolist() for step in range(1, 16)}
    assert all(jumping.rows(step).tolist() == in_order[step] for step in steps)


def test_another_seed_visits_rows_in_another_order():
    lengths, weights = np.arange(2, 200), np.ones(198)
    first, second = (EpochSampler(lengths, weights, rows_per_step=198, seed=seed, epochs=1).rows(1) for seed in (1, 2))
    assert first.tolist() != second.tolist()


@given(LENGTHS, st.integers(1, 9), st.integers(1, 2000), st.integers(1, 32), st.booleans())
@settings(max_examples=60, deadline=None)
def test_micro_batches_keep_every_row_and_both_limits(lengths, rows, max_tokens, multiple, packed):
    batching = MicroBatching(rows, max_tokens, multiple, packed=packed)
    parts = batching.split(np.arange(len(lengths)), lengths)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    for part in parts:
        sequences, width = batching.shape(lengths[part])
        assert len(part) <= rows
        assert len(part) == 1 or sequences * width <= max_tokens


def test_sampler_without_rows_is_refused():
    with pytest.raises(TrainingError, match="no row to train on"):
        EpochSampler(np.array([], int), np.array([]), rows_per_step=4, seed=1, epochs=1)


def test_sampler_whose_weights_are_all_zero_is_refused():
    with pytest.raises(TrainingError, match="no row to train on"):
        EpochSampler(np.array([3, 4]), np.zeros(2), rows_per_step=4, seed=1, epochs=1)


def test_padding_is_below_5_percent_at_batch_size_4_on_lengths_like_alpacas():
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(4.57, 0.63, 2000).astype(int), 20, 825)
    sampler = EpochSampler(lengths, np.ones(2000), rows_per_step=4, seed=1, epochs=1)
    batching = MicroBatching(4, 4 * 825)
    positions = sum(
        len(part) * lengths[part].max()
        for step in range(1, sampler.num_steps + 1)
        for part in batching.split(sampler.rows(step), lengths)
    )
    assert positions / lengths.sum() <= 1.05
