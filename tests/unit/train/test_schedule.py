"""The learning rate of each step."""

import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from snaketune.train.batches import LRSchedule, schedule_from

KINDS = st.sampled_from(["constant", "linear", "cosine"])


@given(KINDS, st.integers(1, 500), st.integers(0, 200), st.floats(0, 1))
def test_learning_rate_warms_up_then_never_increases(kind, num_steps, warmup, min_lr_ratio):
    warmup = min(warmup, num_steps // 2)
    schedule = LRSchedule(1e-3, num_steps, kind, warmup, min_lr_ratio)
    rates = [schedule(step) for step in range(1, num_steps + 1)]
    assert max(rates) <= 1e-3 + 1e-12
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(rate > 0 for rate in rates[:-1])


@given(KINDS, st.integers(2, 500), st.floats(0, 1))
def test_last_learning_rate_is_min_lr_ratio_times_the_peak(kind, num_steps, min_lr_ratio):
    end = LRSchedule(1.0, num_steps, kind, 0, min_lr_ratio)(num_steps)
    assert end == pytest.approx(1.0 if kind == "constant" else min_lr_ratio, abs=1e-12)


def test_cosine_and_linear_decay_are_at_half_the_peak_half_way():
    assert LRSchedule(1.0, 100, "cosine")(50) == pytest.approx(0.5)
    assert LRSchedule(1.0, 100, "linear")(50) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("warmup_steps", "num_steps", "expected"), [(100, 1000, 100), (0.1, 1000, 100), (100, 60, 30), (0, 9, 0)]
)
def test_warmup_is_in_steps_or_a_share_and_ends_before_half_of_a_short_training(warmup_steps, num_steps, expected):
    config = tiny_models.train_config(warmup_steps=warmup_steps)
    assert schedule_from(config, num_steps).warmup_steps == expected
