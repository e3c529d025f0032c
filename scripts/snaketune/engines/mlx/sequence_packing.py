"""Sequence packing: several rows in one sequence, with a block-diagonal attention mask that keeps them apart.

mlx-lm's models ask the cache that they are given for their mask, so a cache that stores nothing and returns a
block-diagonal mask isolates the rows without a change of any model. Positions go on from row to row; rotary embeddings
see only differences of positions, which within a row are the same. Whether a model does all that is not assumed but
measured (`ChunkedCrossEntropy.supports_packing`).
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx


class BlockDiagonalMaskCache:
    """Stands for a KV cache in one forward pass. segments: int32 (length,), the index of each position's row."""

    offset = 0

    def __init__(self, segments: mx.array) -> None:
        self._segments = segments

    def make_mask(self, length: int, window_size: int | None = None, **_: Any) -> mx.array:
        """bool (length, length): the positions of its own row that each position sees, at most `window_size` of them.

        mlx-lm also says whether the mask must be an array; here it always is.
        """
        positions = mx.arange(length)
        query, key = positions[:, None], positions[None]
        mask = (query >= key) & (self._segments[:, None] == self._segments[None])
        return mask if window_size is None else mask & (query < key + window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Return keys and values as they are: nothing came before."""
        return keys, values
