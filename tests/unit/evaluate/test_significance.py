"""Intervals cover what they claim, tests find what they should, and nothing more."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.evaluate import significance

ps = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def ratio(sums):
    return sums[..., 0] / sums[..., 1]


def ones(values):
    return np.stack([values, np.ones(len(values))], axis=1)


@pytest.mark.parametrize(("rows", "least"), [(20, 0.91), (50, 0.92), (100, 0.92)])
def test_a_95_percent_interval_of_a_skewed_mean_covers_the_truth_as_often_as_it_claims(rows, least):
    rng = np.random.default_rng(rows)
    covered = 0
    for trial in range(300):
        stats = ones(rng.gamma(2.0, 1.0, rows))
        low, high = significance.percentile_interval(ratio(significance.bootstrap_sums(stats, 1000, trial)), rows)
        covered += low <= 2.0 <= high
    assert least <= covered / 300 <= 0.985


def test_a_wilson_interval_of_a_share_covers_the_truth_also_near_zero():
    rng = np.random.default_rng(5)
    for share in (0.02, 0.3, 0.9):
        right = rng.binomial(50, share, 2000)
        inside = [low <= share <= high for low, high in (significance.wilson_interval(r, 50) for r in right)]
        assert np.mean(inside) >= 0.92


def test_a_wilson_interval_is_never_empty_at_none_right_or_all_right():
    assert significance.wilson_interval(0, 50)[1] > 0.05
    assert significance.wilson_interval(50, 50)[0] < 0.95


@pytest.mark.parametrize("share", [0.04, 0.3, 0.5])
def test_a_proportion_interval_of_rows_in_clusters_covers_the_truth_as_often_as_it_claims(share):
    """Forty questions of one to five rows, which are all right or all wrong together."""
    rng = np.random.default_rng(9)
    covered, naive, trials = 0, 0, 1000
    for _ in range(trials):
        sizes = rng.integers(1, 6, 40).astype(float)
        stats = np.stack([sizes * (rng.random(40) < share), sizes], axis=1)
        low, high = significance.proportion_interval(stats)
        covered += low <= share <= high
        low, high = significance.wilson_interval(*stats.sum(axis=0))
        naive += low <= share <= high
    assert covered / trials >= 0.92
    assert naive / trials < 0.88  # what it was when each row counted as independent


def test_a_proportion_interval_of_single_rows_is_wilsons():
    stats = ones(np.array([1.0, 0, 0, 1, 0]))
    assert significance.proportion_interval(stats) == significance.wilson_interval(2, 5)


def test_a_proportion_interval_of_none_right_counts_clusters_and_not_rows():
    stats = np.array([[0.0, 4.0]] * 10)
    assert significance.proportion_interval(stats) == pytest.approx(significance.wilson_interval(0, 10))


def test_an_unvaried_interval_is_wilsons_at_the_ends_of_the_range_and_never_empty():
    assert significance.unvaried_interval(0.0, 0.0, 1.0, 49) == pytest.approx(significance.wilson_interval(0, 49))
    assert significance.unvaried_interval(100.0, 0.0, 100.0, 49)[0] == pytest.approx(
        100 * significance.wilson_interval(49, 49)[0]
    )
    low, high = significance.unvaried_interval(0.0, -1.0, 1.0, 49)
    assert low == -high
    assert high == pytest.approx(significance.wilson_interval(0, 49)[1])


@pytest.mark.parametrize("by_cluster", [True, False])
def test_paired_randomization_keeps_its_level_only_where_rows_with_one_question_are_swapped_together(by_cluster):
    rng = np.random.default_rng(13)
    rejected, trials = 0, 400
    for trial in range(trials):
        sizes = rng.integers(1, 7, 25)
        names = [f"question {i}" for i, size in enumerate(sizes) for _ in range(size)]
        one, other = (np.repeat(rng.normal(0, 1, 25), sizes) for _ in range(2))
        stats = [ones(values) for values in (one, other)]
        if by_cluster:
            stats = [significance.sum_by_cluster(side, names) for side in stats]
        rejected += significance.randomization_p(*stats, ratio, 200, trial) < 0.05
    if by_cluster:
        assert rejected / trials <= 0.07
    else:
        assert rejected / trials > 0.15  # what it was when each row counted as independent


@given(ps)
def test_holm_never_makes_a_finding_surer_and_keeps_the_order(given_ps):
    corrected = significance.holm(given_ps)
    assert all(after >= before for before, after in zip(given_ps, corrected, strict=True))
    assert all(0 <= p <= 1 for p in corrected)
    order = sorted(range(len(given_ps)), key=lambda i: given_ps[i])
    assert [corrected[i] for i in order] == sorted(corrected)


def test_holm_equals_the_worked_example():
    assert significance.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_exact_binomial_test_of_the_rows_that_differ(gained, lost):
    one = [1.0] * gained + [0.0] * lost + [1.0, 0.0]
    other = [0.0] * gained + [1.0] * lost + [1.0, 0.0]
    n = gained + lost
    exact = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n)
    assert significance.mcnemar_p(one, other) == pytest.approx(exact)


def test_identical_variants_are_never_called_different():
    stats = ones(np.random.default_rng(1).random(30))
    assert significance.randomization_p(stats, stats, ratio, 1000, 1) == 1.0


def test_paired_randomisation_calls_two_equal_variants_different_no_more_often_than_its_level():
    rng = np.random.default_rng(3)
    rejected = 0
    for trial in range(500):
        hard = rng.normal(0, 2, 40)
        one, other = hard + rng.normal(0, 1, 40), hard + rng.normal(0, 1, 40)
        rejected += significance.randomization_p(ones(one), ones(other), ratio, 400, trial) < 0.05
    assert rejected / 500 <= 0.07


def test_a_planted_improvement_is_found_as_often_as_the_power_calculation_says():
    rng = np.random.default_rng(4)
    rows, found = 60, 0
    gain = significance.minimum_detectable_effect(math.sqrt(2 / rows))
    for trial in range(400):
        one, other = rng.normal(gain, 1, rows), rng.normal(0, 1, rows)
        found += significance.randomization_p(ones(one), ones(other), ratio, 400, trial) < 0.05
    assert 0.74 <= found / 400 <= 0.86


def test_the_same_seed_draws_the_same_rows_and_another_seed_others():
    stats = np.random.default_rng(0).random((50, 2))
    assert np.array_equal(significance.bootstrap_sums(stats, 700, 1), significance.bootstrap_sums(stats, 700, 1))
    assert not np.array_equal(significance.bootstrap_sums(stats, 700, 1), significance.bootstrap_sums(stats, 700, 2))


def test_lines_of_one_row_are_resampled_together():
    stats = np.array([[1.0, 1], [2, 1], [3, 1]])
    assert significance.sum_by_cluster(stats, ["a", "b", "a"]).tolist() == [[4, 2], [2, 1]]
