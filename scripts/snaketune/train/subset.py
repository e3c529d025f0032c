"""A part of the rows that stays the same part when rows are added, and grows by adding rows only."""

from __future__ import annotations

import hashlib

import numpy as np

from snaketune.tokens.token_store import TokenStore


def first(store: TokenStore, count: int, seed: int) -> np.ndarray:
    """The numbers (ascending) of the `count` rows that come first in the order of a keyed hash of their content.

    Nested: the subset of a smaller count lies in that of a larger one, and a new row displaces at most one other.
    """
    if count >= len(store):
        return np.arange(len(store))
    key = seed.to_bytes(8, "little")
    digests = (hashlib.blake2b(store.row(row)[0].tobytes(), digest_size=8, key=key) for row in range(len(store)))
    numbers = np.fromiter((int.from_bytes(one.digest(), "big") for one in digests), np.uint64, len(store))
    return np.sort(np.argsort(numbers, kind="stable")[:count])
