"""How sure a number is: bootstrap intervals, paired tests, correction for many, and what a test set could have shown.

Rows are the unit: what is resampled or swapped is a row (or a cluster of lines that belong to one row) with all its
statistics, so both artefacts of a comparison always see the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

Value = Callable[[np.ndarray], np.ndarray]
NORMAL = NormalDist()
BLOCK = 500  # resamples whose draws are held at once


def clustered(stats: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """Statistics summed within each cluster [clusters, k], in the order of first appearance."""
    number = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    if len(number) == len(stats):
        return stats
    sums = np.zeros((len(number), stats.shape[1]))
    np.add.at(sums, [number[name] for name in clusters], stats)
    return sums


def resamples(stats: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sums of `count` bootstrap resamples [count, k] of rows [rows, k]; the same seed draws the same rows."""
    rng = np.random.default_rng(seed)
    rows = len(stats)
    sums = []
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        sums.append(rng.multinomial(rows, np.full(rows, 1 / rows), size=size) @ stats)
    return np.concatenate(sums)


def interval(values: np.ndarray, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap values, widened for few rows (Hesterberg 2015, "expanded percentile")."""
    tail = expanded_tail(rows, confidence)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def expanded_tail(rows: int, confidence: float = 0.95) -> float:
    """The share to leave out at each end so that a percentile interval of a mean is as wide as Student's."""
    if rows < 2:
        return 0.0
    z = NORMAL.inv_cdf((1 + confidence) / 2)
    free = rows - 1
    # Student's quantile by its expansion in 1 / degrees of freedom (Abramowitz and Stegun 26.7.5).
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return NORMAL.cdf(-t * math.sqrt(rows / free))


def wilson(right: float, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share of right rows (Wilson 1927), which holds also at 0 and at 1."""
    z2 = NORMAL.inv_cdf((1 + confidence) / 2) ** 2
    share = right / rows
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = math.sqrt(z2 * (share * (1 - share) / rows + z2 / (4 * rows**2))) / (1 + z2 / rows)
    return max(0.0, middle - half), min(1.0, middle + half)


def randomisation_p(one: np.ndarray, other: np.ndarray, value: Value, trials: int, seed: int) -> float:
    """Two-sided p-value of paired approximate randomisation (Noreen 1989; Riezler and Maxwell 2005).

    one, other: statistics [rows, k] of two artefacts on the same rows. If they answered equally well, swapping their
    statistics in any rows changes the difference by chance only.
    """
    rng = np.random.default_rng(seed)
    both = (one + other).sum(axis=0)
    seen = abs(float(value(one.sum(axis=0)) - value(other.sum(axis=0))))
    larger = 0
    for start in range(0, trials, BLOCK):
        swap = rng.integers(2, size=(min(BLOCK, trials - start), len(one)), dtype=np.int8)
        sums = other.sum(axis=0) + swap.astype(float) @ (one - other)
        larger += int((np.abs(value(sums) - value(both - sums)) >= seen * (1 - 1e-9)).sum())
    return (larger + 1) / (trials + 1)


def mcnemar_p(one: Sequence[float], other: Sequence[float]) -> float:
    """Exact two-sided McNemar test: of the rows that only one artefact has right, is each as often the one?"""
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


def detectable(error: float, *, level: float = 0.05, power: float = 0.8, comparisons: int = 1) -> float:
    """The smallest true difference that a two-sided test at `level` finds with probability `power`.

    error: standard error of the difference; comparisons: tests among which the level is shared out.
    """
    return error * (NORMAL.inv_cdf(1 - level / (2 * comparisons)) + NORMAL.inv_cdf(power))


def fewest_discordant(level: float) -> int:
    """The fewest rows that an exact McNemar test can find different at `level`, were all of them gains."""
    return math.floor(1 - math.log2(level)) + 1
