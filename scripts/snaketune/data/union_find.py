"""Clusters: rows that are near duplicates, share a question or share a group, and so must stand on one side."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np


class Clusters:
    """Disjoint sets of rows 0 to count - 1. The sets do not depend on the order in which rows are joined."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def root(self, row: int) -> int:
        parent = self.parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, one: int, other: int) -> None:
        one, other = self.root(one), self.root(other)
        if one != other:
            self.parent[max(one, other)] = min(one, other)

    def join_equal(self, rows: np.ndarray, keys: np.ndarray) -> None:
        """Join the rows whose keys are equal; rows and keys have one entry a pair."""
        order = np.argsort(keys, kind="stable")
        rows, keys = rows[order], keys[order]
        same = np.flatnonzero(keys[1:] == keys[:-1])
        for one, other in zip(rows[same].tolist(), rows[same + 1].tolist(), strict=True):
            self.join(one, other)

    def members(self) -> dict[int, list[int]]:
        """The sets of more than one row, each in rising order, by their first row."""
        found: dict[int, list[int]] = {}
        for row, parent in enumerate(self.parent):
            if parent != row:
                first = self.root(row)
                found.setdefault(first, [first]).append(row)
        return found


def identities(clusters: Iterable[list[int]], key: Callable[[int], bytes]) -> dict[int, bytes]:
    """The name of each clustered row's cluster: the smallest key in it, whatever order the rows came in."""
    return {row: name for members in clusters for name in [min(map(key, members))] for row in members}
