"""How sure a number is: bootstrap intervals, paired tests, correction for many tests, and what a test set could show.

The unit of all of it is the cluster: what is resampled or swapped is a cluster of predictions (rows with the same
question, turns of one conversation) with all its statistics, so both sides of a comparison always see the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
Interval = tuple[float, float]
NORMAL = NormalDist()
CONFIDENCE = 0.95  # of intervals
ALPHA = 0.05  # level of tests
POWER = 0.8  # with which a test is to find what is said to be detectable
BLOCK = 500  # resamples whose draws are held at once


def sum_by_cluster(stats: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """Statistics summed within each cluster [clusters, k], in the order of first appearance."""
    number = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    if len(number) == len(stats):
        return stats
    sums = np.zeros((len(number), stats.shape[1]))
    np.add.at(sums, [number[name] for name in clusters], stats)
    return sums


def bootstrap_sums(stats: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sums of `count` bootstrap resamples [count, k] of clusters [clusters, k]; the same seed draws the same ones."""
    rng = np.random.default_rng(seed)
    clusters = len(stats)
    sums = []
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        sums.append(rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size) @ stats)
    return np.concatenate(sums)


def percentile_interval(values: np.ndarray, clusters: int, confidence: float = CONFIDENCE) -> Interval:
    """Percentile interval of bootstrap values, widened for few clusters (Hesterberg 2015, "expanded percentile")."""
    tail = expanded_tail(clusters, confidence)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def expanded_tail(clusters: int, confidence: float = CONFIDENCE) -> float:
    """The share to leave out at each end so that a percentile interval of a mean is as wide as Student's."""
    if clusters < 2:
        return 0.0
    free = clusters - 1
    return NORMAL.cdf(-student_quantile(free, confidence) * math.sqrt(clusters / free))


def student_quantile(free: int, confidence: float = CONFIDENCE) -> float:
    """How many standard errors a two-sided interval reaches to each side, with so many degrees of freedom.

    By its expansion in 1 / degrees of freedom (Abramowitz and Stegun 26.7.5); exact for one and for two.
    """
    if free == 1:
        return math.tan(math.pi * confidence / 2)
    if free == 2:
        return confidence * math.sqrt(2 / (1 - confidence**2))
    z = NORMAL.inv_cdf((1 + confidence) / 2)
    return (
        z
        + (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    )


def wilson_interval(successes: float, rows: float, confidence: float = CONFIDENCE) -> Interval:
    """Interval of a proportion (Wilson 1927), which holds also at 0 and at 1."""
    z2 = NORMAL.inv_cdf((1 + confidence) / 2) ** 2
    share = successes / rows
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = math.sqrt(z2 * (share * (1 - share) / rows + z2 / (4 * rows**2))) / (1 + z2 / rows)
    return max(0.0, middle - half), min(1.0, middle + half)


def proportion_interval(stats: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's interval of a proportion over clusters; stats [clusters, 2]: successes and rows of each cluster.

    Rows of one cluster tell less than as many independent rows: Wilson's formula is given the number of independent
    rows that would vary as much (Korn and Graubard 1998), which is the number of clusters where nothing varies.
    """
    successes, rows = stats.sum(axis=0).tolist()
    clusters = len(stats)
    if clusters == rows:
        return wilson_interval(successes, rows, confidence)
    share = successes / rows
    residuals = stats[:, 0] - share * stats[:, 1]
    variance = float((residuals**2).sum()) / rows**2 * clusters / max(clusters - 1, 1)
    effective = min(share * (1 - share) / variance, rows) if variance > 0 else clusters
    return wilson_interval(share * effective, effective, confidence)


def unvaried_interval(value: float, lowest: float, highest: float, clusters: int) -> Interval:
    """Interval of a bounded value where no resample differs: 0 of 50 rows do not show that there is none.

    As many rows of another kind as Wilson's interval of 0 allows may have gone unseen, at either end of the range.
    """
    _, unseen = wilson_interval(0, clusters)
    return value - unseen * (value - lowest), value + unseen * (highest - value)


def randomization_p(one: np.ndarray, other: np.ndarray, statistic: Statistic, permutations: int, seed: int) -> float:
    """Two-sided p-value of paired approximate randomization (Noreen 1989; Riezler and Maxwell 2005).

    one, other: statistics [clusters, k] of two variants on the same clusters. If they answered equally well, swapping
    their statistics in any clusters changes the difference by chance only. The smallest p-value that so many
    permutations can give is 1 / (permutations + 1).
    """
    rng = np.random.default_rng(seed)
    both = (one + other).sum(axis=0)
    observed = abs(float(statistic(one.sum(axis=0)) - statistic(other.sum(axis=0))))
    larger = 0
    for start in range(0, permutations, BLOCK):
        swap = rng.integers(2, size=(min(BLOCK, permutations - start), len(one)), dtype=np.int8)
        sums = other.sum(axis=0) + swap.astype(float) @ (one - other)
        larger += int((np.abs(statistic(sums) - statistic(both - sums)) >= observed * (1 - 1e-9)).sum())
    return (larger + 1) / (permutations + 1)


def mcnemar_p(one: Sequence[float], other: Sequence[float]) -> float:
    """Exact two-sided McNemar test: of the rows that only one variant has right, is each as often the one?"""
    gained = sum(1 for a, b in zip(one, other, strict=True) if a > b)
    lost = sum(1 for a, b in zip(one, other, strict=True) if a < b)
    rows = gained + lost
    tail = sum(math.comb(rows, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**rows)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): the chance of even one false finding stays below the level."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    corrected = [0.0] * len(ps)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return corrected


def minimum_detectable_effect(error: float, *, tests: int = 1) -> float:
    """The smallest true difference that a two-sided test at level ALPHA finds with probability POWER.

    error: standard error of the difference; tests: among how many the level is shared out.
    """
    return error * (NORMAL.inv_cdf(1 - ALPHA / (2 * tests)) + NORMAL.inv_cdf(POWER))


def fewest_discordant(tests: int = 1) -> int:
    """The fewest rows that an exact McNemar test can find different, were all of them gains.

    tests: among how many the level ALPHA is shared out.
    """
    return math.floor(1 - math.log2(ALPHA / tests)) + 1
