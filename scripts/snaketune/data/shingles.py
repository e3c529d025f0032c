"""Rows as sets of hashed shingles, made a megabyte of text at a time and kept in a file.

A shingle is three words running, or five characters where words are not set apart by spaces. It is hashed as a
polynomial over its code points, for a whole batch at once: with prefix sums, the hash of any stretch of text is one
subtraction (Karp and Rabin 1987). A row has two sets, of what is asked and of what is answered.
"""

from __future__ import annotations

import functools
import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

WORDS, CHARACTERS = 3, 5  # in a shingle
BATCH = 1 << 20  # characters hashed at once
SLOTS = 1 << 18  # counters for how many rows a shingle stands in; two shingles may share one
COMMON_SHARE, COMMON_ROWS = 0.2, 20
RADIX = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
MIX = 0xFF51AFD7ED558CCD
SPACE, END = ord(" "), ord("\n")
# Thai, Lao, Burmese and Khmer, kana, Han and other East Asian scripts.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u31ff\u3400-\u9fff\uf900-\ufaff]")

Hashes = np.ndarray  # uint32, one entry a shingle


class Shingles:
    """The shingles of rows 0, 1, ...: first add() every row, then finish(), then read.

    kind: words, characters, or auto (characters for a row whose script does without spaces). path: a scratch file.
    """

    def __init__(self, path: Path, kind: str = "auto") -> None:
        self.kind = kind
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 (closed by close())
        self._texts: dict[bool, list[str]] = {True: [], False: []}
        self._rows: dict[bool, list[int]] = {True: [], False: []}
        self._order, self._ends = array("q"), array("q")  # rows as they stand in the file; where their two sets end
        self._written = self._characters = self._count = 0
        self._stand_in = np.zeros(SLOTS, np.int64)

    def __len__(self) -> int:
        return self._count

    def add(self, asked: str, answered: str) -> None:
        """The next row: text.loose() of its questions and of its answers."""
        by_words = self.kind == "words" or (self.kind == "auto" and not _is_unspaced(answered))
        self._texts[by_words] += (asked, answered)
        self._rows[by_words].append(self._count)
        self._count += 1
        self._characters += len(asked) + len(answered)
        if self._characters > BATCH:
            self._flush()

    def finish(self) -> None:
        """No more rows. What stands in a fifth of them, as the words of an instruction do, tells nothing about any."""
        self._flush()
        self.common = self._stand_in > max(COMMON_ROWS, COMMON_SHARE * self._count)
        ends = np.array(self._ends, np.int64).reshape(-1, 2)
        self._file_order = np.array(self._order, np.int64)
        self._file_starts = np.concatenate([[0], ends[:, 1]])
        bounds = np.empty((self._count, 3), np.int64)
        bounds[self._file_order] = np.column_stack([self._file_starts[:-1], ends])
        self._bounds = bounds

    def close(self) -> None:
        self._file.close()

    def sets(self, row: int) -> tuple[Hashes, Hashes]:
        """The shingles of what a row asks and of what it answers, each sorted, each once."""
        start, middle, end = self._bounds[row].tolist()
        found = self._read(start, end)
        return np.unique(found[: middle - start]), np.unique(found[middle - start :])

    def telling(self, found: Hashes) -> Hashes:
        """Those of some shingles that are not common to all rows."""
        return found[~self.common[found & (SLOTS - 1)]]

    def batches(self, size: int = 10_000) -> Iterator[tuple[np.ndarray, Hashes, np.ndarray]]:
        """Every row's telling shingles, some rows at a time: the rows, their shingles end to end, n + 1 bounds."""
        for first in range(0, self._count, size):
            starts = self._file_starts[first : first + size + 1]
            found = self._read(int(starts[0]), int(starts[-1]))
            tells = ~self.common[found & (SLOTS - 1)]
            before = np.concatenate([[0], np.cumsum(tells, dtype=np.int64)])
            yield self._file_order[first : first + size], found[tells], before[starts - starts[0]]

    def _read(self, start: int, end: int) -> Hashes:
        return np.frombuffer(os.pread(self._file.fileno(), 4 * (end - start), 4 * start), np.uint32)

    def _flush(self) -> None:
        for by_words, texts in self._texts.items():
            if not texts:
                continue
            found, counts = hashed(texts, by_words)
            self._file.write(found.data)
            self._stand_in += np.bincount(found & (SLOTS - 1), minlength=SLOTS)
            self._order.extend(self._rows[by_words])
            self._ends.extend((np.cumsum(counts) + self._written).tolist())
            self._written += len(found)
            texts.clear()
            self._rows[by_words].clear()
        self._characters = 0


def hashed(texts: list[str], by_words: bool) -> tuple[Hashes, np.ndarray]:
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
    return _stretches(codes, starts[first], ends[last]), counts


def _stretches(codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Hashes:
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
