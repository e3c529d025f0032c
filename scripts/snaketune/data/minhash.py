"""Near duplicates: candidates by MinHash and banding, verified by the Jaccard similarity of their shingles.

Shingling, MinHash and the resemblance of documents: Broder 1997, "On the resemblance and containment of documents".

Two rows are similar if their Jaccard similarity reaches `threshold`, plus a margin for short rows
(`length_adjusted_threshold`), or if they differ in nothing but capitals and punctuation. Similar rows share a split.
One of them is a near duplicate of the other, and is removed, only if prompts and responses are each that similar: the
same answer to another question, or another answer to the same question, is kept.

A shingle is three successive words, or five characters where a script sets no spaces between words. It is hashed as a
polynomial over its code points, for a whole batch at once: with prefix sums, the hash of any span of text is one
subtraction (Karp and Rabin 1987). A row has two sets of shingles, of its prompts and of its responses.
"""

from __future__ import annotations

import functools
import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rensa

WORDS, CHARACTERS = 3, 5  # in a shingle
BATCH = 1 << 20  # characters hashed at once
COUNT_BUCKETS = 1 << 18  # counters for how many rows a shingle stands in; two shingles may share one
COMMON_SHARE, COMMON_ROWS = 0.2, 20
RADIX = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
MIX = 0xFF51AFD7ED558CCD
SPACE, END = ord(" "), ord("\n")
# Thai, Lao, Burmese and Khmer, kana, Han and other East Asian scripts.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u31ff\u3400-\u9fff\uf900-\ufaff]")

Hashes = np.ndarray  # uint32, one entry a shingle


class Shingles:
    """The shingles of rows 0, 1, ...: first add() every row, then seal(), then read.

    kind: words, characters, or auto (characters for a row whose script does without spaces). path: a scratch file.
    """

    def __init__(self, path: Path, kind: str = "auto") -> None:
        self.kind = kind
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 (closed by close())
        self._texts: dict[bool, list[str]] = {True: [], False: []}
        self._rows: dict[bool, list[int]] = {True: [], False: []}
        self._order, self._ends = array("q"), array("q")  # rows as they stand in the file; where their two sets end
        self._written = self._characters = self._count = 0
        self._document_frequency = np.zeros(COUNT_BUCKETS, np.int64)

    def __len__(self) -> int:
        return self._count

    def add(self, folded_prompt: str, folded_response: str) -> None:
        """Add the next row: its folded prompts and responses (see deduplication.fold)."""
        by_words = self.kind == "words" or (self.kind == "auto" and not _is_unspaced(folded_response))
        self._texts[by_words] += (folded_prompt, folded_response)
        self._rows[by_words].append(self._count)
        self._count += 1
        self._characters += len(folded_prompt) + len(folded_response)
        if self._characters > BATCH:
            self._flush()

    def seal(self) -> None:
        """Finish adding rows. Shingles that occur in over 20 % of the rows (e.g. a shared instruction) are ignored."""
        self._flush()
        self.common = self._document_frequency > max(COMMON_ROWS, COMMON_SHARE * self._count)
        ends = np.array(self._ends, np.int64).reshape(-1, 2)
        self._file_order = np.array(self._order, np.int64)
        self._file_starts = np.concatenate([[0], ends[:, 1]])
        bounds = np.empty((self._count, 3), np.int64)
        bounds[self._file_order] = np.column_stack([self._file_starts[:-1], ends])
        self._bounds = bounds

    def close(self) -> None:
        self._file.close()

    def sets(self, row: int) -> tuple[Hashes, Hashes]:
        """The distinct shingles of a row's prompts and of its responses, each sorted."""
        start, middle, end = self._bounds[row].tolist()
        found = self._read(start, end)
        return np.unique(found[: middle - start]), np.unique(found[middle - start :])

    def drop_common(self, found: Hashes) -> Hashes:
        """Drop the shingles that many rows have."""
        return found[~self.common[found & (COUNT_BUCKETS - 1)]]

    def batches(self, size: int = 10_000) -> Iterator[tuple[np.ndarray, Hashes, np.ndarray]]:
        """Every row's drop_common shingles, some rows at a time: the rows, their shingles end to end, n + 1 bounds."""
        for first in range(0, self._count, size):
            starts = self._file_starts[first : first + size + 1]
            found = self._read(int(starts[0]), int(starts[-1]))
            tells = ~self.common[found & (COUNT_BUCKETS - 1)]
            before = np.concatenate([[0], np.cumsum(tells, dtype=np.int64)])
            yield self._file_order[first : first + size], found[tells], before[starts - starts[0]]

    def _read(self, start: int, end: int) -> Hashes:
        return np.frombuffer(os.pread(self._file.fileno(), 4 * (end - start), 4 * start), np.uint32)

    def _flush(self) -> None:
        for by_words, texts in self._texts.items():
            if not texts:
                continue
            found, counts = hash_shingles(texts, by_words)
            self._file.write(found.data)
            self._document_frequency += np.bincount(found & (COUNT_BUCKETS - 1), minlength=COUNT_BUCKETS)
            self._order.extend(self._rows[by_words])
            self._ends.extend((np.cumsum(counts) + self._written).tolist())
            self._written += len(found)
            texts.clear()
            self._rows[by_words].clear()
        self._characters = 0


def hash_shingles(texts: list[str], by_words: bool) -> tuple[Hashes, np.ndarray]:
    """The shingles of each text, one after another, and how many each has.

    A text shorter than a shingle has one shingle, all of it; an empty one has none.
    """
    codes = np.frombuffer(("\n".join(texts) + "\n").encode("utf-32-le"), np.uint32)
    ends_of_texts = np.flatnonzero(codes == END)
    if by_words:
        inside = (codes != SPACE) & (codes != END)
        edges = np.flatnonzero(np.diff(inside, prepend=False))
        starts, ends = edges[::2], edges[1::2]
    else:
        starts = np.flatnonzero(codes != END)
        ends = starts + 1
    # How many units (words or characters) each text has, and which of them begin a shingle.
    size = WORDS if by_words else CHARACTERS
    until = np.searchsorted(starts, ends_of_texts)
    units = np.diff(until, prepend=0)
    counts = np.minimum(units, np.maximum(units - size + 1, 1))
    place = np.arange(len(starts)) - np.repeat(until - units, units)
    first = np.flatnonzero(place < np.repeat(counts, units))
    last = np.minimum(first + size, np.repeat(until, counts)) - 1
    return _hash_spans(codes, starts[first], ends[last]), counts


def _hash_spans(codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Hashes:
    """A 32-bit hash of each stretch of the text, from `starts[i]` to before `ends[i]`."""
    powers, inverses = _powers(len(codes))
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * powers[: len(codes)], out=sums[1:])
    found = (sums[ends] - sums[starts]) * inverses[starts]
    found ^= found >> np.uint64(32)
    found *= np.uint64(MIX)
    return (found >> np.uint64(32)).astype(np.uint32)


@functools.lru_cache(maxsize=1)
def _table(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first powers of the radix and of its inverse, modulo 2^64."""
    inverse = pow(RADIX, -1, 1 << 64)
    tables = []
    for base in (RADIX, inverse):
        factors = np.full(count, base, np.uint64)
        factors[0] = 1
        tables.append(np.cumprod(factors, dtype=np.uint64))
    return tables[0], tables[1]


def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    return _table(1 << max(21, count.bit_length()))


def _is_unspaced(text: str) -> bool:
    """Whether a text is in a script that sets no spaces between words."""
    if text.isascii():
        return False
    return 4 * len(UNSPACED.findall(text)) > len(text)


PERMUTATIONS = 48
SHORT_ROW_MARGIN = 4  # shingles
WINDOW = 8  # rows of one band that each row is compared with, where very many share the band
ESTIMATE_SLACK = 0.2  # by which MinHash may underestimate: four standard deviations at 48 permutations
PAIRS_AT_ONCE = 1 << 18
SEED = 1


def length_adjusted_threshold(threshold: float, union: int) -> float:
    """The Jaccard similarity above which two rows with `union` distinct shingles count as similar.

    In a short row one changed word changes the meaning, hence a margin of four shingles: at 0.85, rows of fewer than
    27 shingles must be equal, and rows of 100 need 0.89.
    """
    return threshold + SHORT_ROW_MARGIN / union if union else 1.0


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


class NearDuplicateIndex:
    """Finds similar rows by MinHash signatures and banding. threshold: a Jaccard similarity."""

    def __init__(self, shingles: Shingles, threshold: float) -> None:
        self.shingles = shingles
        self.threshold = threshold

    def is_similar(self, one: int, other: int) -> bool:
        """Whether two rows are similar by the shingles that are not common to many rows."""
        tells = self.shingles.drop_common
        left, right = (tells(np.union1d(*self.shingles.sets(row))) for row in (one, other))
        alike, union = jaccard(left, right)
        return union > 0 and alike >= length_adjusted_threshold(self.threshold, union)

    def is_near_duplicate(self, one: int, other: int) -> bool:
        """Whether two rows are similar, and so are their prompts and their responses."""
        pairs = zip(self.shingles.sets(one), self.shingles.sets(other), strict=True)
        return all(jaccard(*pair)[0] >= self.threshold for pair in pairs) and self.is_similar(one, other)

    def pairs(self, rank: np.ndarray, sides: np.ndarray | None = None) -> Iterator[tuple[int, int]]:
        """Pairs of similar rows, each once, smaller row first. rank: see content_order.

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
                    likely = estimate >= self.threshold - ESTIMATE_SLACK
                    if sides is not None:
                        likely &= sides[one] != sides[other]
                    for a, b in zip(one[likely].tolist(), other[likely].tolist(), strict=True):
                        pair = min(a, b) * count + max(a, b)
                        if pair not in seen:
                            seen.add(pair)
                            if self.is_similar(a, b):
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
    members = np.flatnonzero(band.any(axis=1))
    key = np.zeros(len(members), np.uint64)
    for column in range(band.shape[1]):
        key = (key ^ band[members, column]) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    order = np.argsort(key)
    ordered = key[order]
    repeated = np.diff(ordered, prepend=~ordered[:1]) == 0
    several = order[repeated | np.append(repeated[1:], False)]  # few, so that only these need their full order
    several = several[np.lexsort((rank[members[several]], key[several]))]
    rows, key = members[several], key[several]
    for step in range(1, WINDOW + 1):
        same = np.flatnonzero(key[step:] == key[:-step])
        if not len(same):
            return
        yield rows[same], rows[same + step]
