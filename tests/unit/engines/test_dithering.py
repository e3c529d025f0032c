"""Rounding by chance: what is on the grid stays, and an update below half a step is kept in the mean."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snaketune.engines.sixteen_bit import dithered, rounded

MEANT = {"float16": 11, "bfloat16": 8}  # bits of a number, the leading one included


def on_the_grid(exact, dtype):
    """The nearest numbers of a 16-bit format, in float32."""
    bits = rounded(np.ascontiguousarray(exact).reshape(-1), dtype)
    wide = bits.view(np.float16) if dtype == "float16" else (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide.astype(np.float32).reshape(exact.shape)


@pytest.mark.parametrize("dtype", MEANT)
@settings(deadline=None, max_examples=25)
@given(st.integers(1, 300), st.integers(1, 900), st.integers(0, 99))
def test_numbers_are_rounded_to_one_of_their_two_neighbors(dtype, rows, width, seed):
    exact = np.random.default_rng(seed).normal(0, 0.02, (rows, width)).astype(np.float32)
    exact[np.abs(exact) < 1e-4] = 1e-4  # float16 is coarser below
    found = dithered(exact, dtype)
    np.testing.assert_array_equal(on_the_grid(found, dtype), found)
    step = 2.0 ** (np.floor(np.log2(np.abs(exact))) + 1 - MEANT[dtype])
    assert (np.abs(found - exact) < step).all()


@pytest.mark.parametrize("dtype", MEANT)
def test_numbers_on_the_grid_stay_and_are_not_copied(dtype):
    exact = on_the_grid(np.random.default_rng(1).normal(0, 0.02, (70, 2000)).astype(np.float32), dtype)
    assert dithered(exact, dtype) is exact
    exact[69, 1999] += 1e-7
    found = dithered(exact, dtype)
    assert found is not exact
    np.testing.assert_array_equal(found.reshape(-1)[:-1], exact.reshape(-1)[:-1])


@pytest.mark.parametrize("share", [0.02, 0.2, 0.45])
def test_update_below_half_a_step_is_kept_in_the_mean_where_the_nearest_would_lose_it(share):
    random = np.random.default_rng(2)
    weights = on_the_grid(random.normal(0, 0.02, (1500, 1400)).astype(np.float32), "bfloat16")
    weights[np.abs(weights) < 2**-10] = 2**-10
    step = (2.0 ** (np.floor(np.log2(np.abs(weights))) - 10)).astype(np.float32)
    update = share * step * random.choice([-1, 1], weights.shape).astype(np.float32)
    update[np.abs(weights) == 2.0 ** np.floor(np.log2(np.abs(weights)))] = 0  # the step below is half as large
    kept = [
        ((found - weights) * update).sum() / (update * update).sum()
        for found in (on_the_grid(weights + update, "float16"), dithered(weights + update, "float16"))
    ]
    assert kept[0] == 0
    assert kept[1] == pytest.approx(1, abs=0.05)


def test_the_same_matrix_is_rounded_to_the_same_bytes():
    exact = np.random.default_rng(3).normal(0, 1, (50, 50)).astype(np.float32)
    assert dithered(exact, "float16").tobytes() == dithered(exact.copy(), "float16").tobytes()


def test_matrix_with_numbers_next_to_the_end_of_the_range_is_left_to_the_nearest():
    exact = np.array([[65_503.7, 1.00001]], np.float32)
    assert dithered(exact, "float16") is exact
