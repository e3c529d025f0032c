"""Several rows in one sequence, each as if it were alone: attention is causal within a row and 0 between rows.

mlx-lm's models ask the cache that they are given for their mask, so a cache that keeps nothing and answers with a
block-diagonal one isolates the rows without a change of any model. Their positions go on from row to row; rotary
embeddings see only differences of positions, which within a row are the same. Whether a model does all that is not
assumed but measured (`Loss.packs`).
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx


class Isolated:
    """A cache for one forward pass over a packed batch. segments: the number of each position's row, int32."""

    offset = 0

    def __init__(self, segments: mx.array) -> None:
        self._segments = segments

    def make_mask(self, length: int, window_size: int | None = None, **_: Any) -> mx.array:
        """(length, length) bool: what each position sees of its own row, of the last `window_size` positions if given.

        mlx-lm also says whether it must be an array; here it always is.
        """
        at = mx.arange(length)
        mask = (at[:, None] >= at[None]) & (self._segments[:, None] == self._segments[None])
        return mask if window_size is None else mask & (at[:, None] < at[None] + window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        return keys, values
