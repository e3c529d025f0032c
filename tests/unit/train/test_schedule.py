"""The learning rate of each update."""

import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from snaketune.train.schedule import Schedule, from_settings

SHAPES = st.sampled_from(["constant", "linear", "cosine"])


@given(SHAPES, st.integers(1, 500), st.integers(0, 200), st.floats(0, 1))
def test_it_rises_to_its_peak_and_never_rises_again(shape, updates, warmup, final_share):
    warmup = min(warmup, updates // 2)
    schedule = Schedule(1e-3, updates, shape, warmup, final_share)
    rates = [schedule(update) for update in range(1, updates + 1)]
    assert max(rates) <= 1e-3 + 1e-12
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(rate > 0 for rate in rates[:-1])


@given(SHAPES, st.integers(2, 500), st.floats(0, 1))
def test_it_ends_at_the_share_of_the_peak_that_was_asked_for(shape, updates, final_share):
    end = Schedule(1.0, updates, shape, 0, final_share)(updates)
    assert end == pytest.approx(1.0 if shape == "constant" else final_share, abs=1e-12)


def test_half_way_cosine_and_linear_are_half_way():
    assert Schedule(1.0, 100, "cosine")(50) == pytest.approx(0.5)
    assert Schedule(1.0, 100, "linear")(50) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("warmup_steps", "updates", "expected"), [(100, 1000, 100), (0.1, 1000, 100), (100, 60, 30), (0, 9, 0)]
)
def test_warmup_is_in_updates_or_a_share_and_ends_before_half_of_a_short_training(warmup_steps, updates, expected):
    assert from_settings(tiny_models.settings(warmup_steps=warmup_steps), updates).warmup == expected
