"""Near duplicates: found by MinHash, verified by the true Jaccard similarity of their shingles.

Two rows are akin when they share a share `threshold` of all the shingles they have, and a little more when they are
short (`needed`), or when they differ in nothing but capitals and punctuation. Akin rows stand on one side of a split.
One of them counts as a near duplicate of the other, and is removed, only when its questions and its answers are each
that alike: the same answer to another question, or another answer to the same question, is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import rensa

from snaketune.data.shingles import Hashes, Shingles

PERMUTATIONS = 48
ALLOWANCE = 4  # shingles
WINDOW = 8  # rows of one band that each row is compared with, where very many share the band
DOUBT = 0.2  # how far MinHash's estimate may fall short of the truth: four standard deviations at 48 permutations
PAIRS_AT_ONCE = 1 << 18
SEED = 1


def needed(threshold: float, union: int) -> float:
    """The similarity that makes two rows of `union` different shingles akin.

    In short rows a changed word changes what is said, so four shingles are held against them: at 0.85, rows of fewer
    than 27 shingles must be equal, and those of 100 must have 0.89.
    """
    return threshold + ALLOWANCE / union if union else 1.0


def band_width(threshold: float) -> int:
    """How many values of a signature candidates must share, such that hardly a pair at the threshold is missed.

    At 0.85 one pair in 7,000 is (12 bands of 4), at 0.65 one in 150, at 0.5 one in 1,000.
    """
    return 4 if threshold >= 0.8 else 3 if threshold >= 0.65 else 2


def jaccard(one: Hashes, other: Hashes) -> tuple[float, int]:
    """Similarity of two sorted sets, and the size of their union; two empty sets are alike."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    union = len(one) + len(other) - shared
    return (shared / union if union else 1.0), union


class Near:
    """Judges pairs of rows. threshold: a Jaccard similarity."""

    def __init__(self, shingles: Shingles, threshold: float) -> None:
        self.shingles = shingles
        self.threshold = threshold

    def akin(self, one: int, other: int) -> bool:
        """Whether two rows are nearly the same by the shingles that are not common to all rows."""
        tells = self.shingles.telling
        left, right = (tells(np.union1d(*self.shingles.sets(row))) for row in (one, other))
        alike, union = jaccard(left, right)
        return union > 0 and alike >= needed(self.threshold, union)

    def repeats(self, one: int, other: int) -> bool:
        """Whether one of two rows may go: they are akin, and so are their questions and their answers."""
        pairs = zip(self.shingles.sets(one), self.shingles.sets(other), strict=True)
        return all(jaccard(*pair)[0] >= self.threshold for pair in pairs) and self.akin(one, other)

    def pairs(self, rank: np.ndarray, sides: np.ndarray | None = None) -> Iterator[tuple[int, int]]:
        """Pairs of akin rows, each once, smaller row first. rank: the rows' places in an order of their contents.

        sides: one number a row; only pairs whose numbers differ are wanted. Which pairs are found depends on the rows
        alone, not on the order they come in: candidates share a band of their signatures, and those of one band are
        compared in the order of their ranks.
        """
        signatures = self._signatures()
        count = len(rank)
        seen: set[int] = set()
        width = band_width(self.threshold)
        for band in range(0, PERMUTATIONS, width):
            for left, right in _candidates(signatures[:, band : band + width], rank):
                for start in range(0, len(left), PAIRS_AT_ONCE):
                    one, other = left[start : start + PAIRS_AT_ONCE], right[start : start + PAIRS_AT_ONCE]
                    estimate = (signatures[one] == signatures[other]).mean(axis=1)
                    likely = estimate >= self.threshold - DOUBT
                    if sides is not None:
                        likely &= sides[one] != sides[other]
                    for a, b in zip(one[likely].tolist(), other[likely].tolist(), strict=True):
                        pair = min(a, b) * count + max(a, b)
                        if pair not in seen:
                            seen.add(pair)
                            if self.akin(a, b):
                                yield min(a, b), max(a, b)

    def _signatures(self) -> np.ndarray:
        """MinHash signatures, uint32, one row a row; all zero where nothing tells a row from others."""
        found = np.zeros((len(self.shingles), PERMUTATIONS), np.uint32)
        for rows, hashes, bounds in self.shingles.batches():
            spread = hashes * np.uint64(0x9E3779B97F4A7C15)
            spread ^= spread >> np.uint64(32)
            digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
                spread, bounds.astype(np.uint64), PERMUTATIONS, SEED
            )
            found[rows] = np.array(digests.to_rows(), np.uint32)
            found[rows[bounds[1:] == bounds[:-1]]] = 0
        return found


def _candidates(band: np.ndarray, rank: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows with the same values in a band: each row with the next WINDOW by rank that have them."""
    told = np.flatnonzero(band.any(axis=1))
    key = np.zeros(len(told), np.uint64)
    for column in range(band.shape[1]):
        key = (key ^ band[told, column]) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    order = np.argsort(key)
    ordered = key[order]
    repeated = np.diff(ordered, prepend=~ordered[:1]) == 0
    several = order[repeated | np.append(repeated[1:], False)]  # few, so that only these need their full order
    several = several[np.lexsort((rank[told[several]], key[several]))]
    rows, key = told[several], key[several]
    for step in range(1, WINDOW + 1):
        same = np.flatnonzero(key[step:] == key[:-step])
        if not len(same):
            return
        yield rows[same], rows[same + step]
