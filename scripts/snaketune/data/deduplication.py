"""Which rows hang together, and which of them repeat others: near duplicates, one question, one group.

The same relations decide which rows stand on one side of a split and whether two splits leak into each other.
"""

from __future__ import annotations

from array import array
from collections.abc import Container
from typing import Any, Literal, NamedTuple

import numpy as np

from snaketune.data.minhash import Near
from snaketune.data.row_keys import KEY, Identity, number
from snaketune.data.shingles import Shingles
from snaketune.data.union_find import Clusters, identities

SIDES = ("", "train", "valid", "test")
KIN_WHEN_OFF = 0.85  # near_duplicates: false keeps every row, but near duplicates still stand on one side
COMPARED = 100  # kept rows that each row of a family of near duplicates is compared with


class Rows:
    """What is remembered of the rows that are neither rejected nor exact duplicates; they are numbered from 0."""

    def __init__(self, shingles: Shingles) -> None:
        self.shingles = shingles
        self.first: dict[bytes, int] = {}
        self.keys = bytearray()
        self.files: dict[str, int] = {}
        self.file, self.line = array("L"), array("q")
        self.source, self.side = array("H"), array("B")
        self.lengths = array("q")  # characters of the questions and of the answers, two numbers a row
        self.loose, self.prompt = array("Q"), array("Q")
        self.opening, self.opened = array("Q"), array("q")  # the key of an opening, and whose it is
        self.group, self.grouped = array("q"), array("q")  # the place of a group's name, and whose group it is
        self.groups: dict[str, int] = {}
        self.category = array("q")  # the place of a category's name, or -1
        self.categories: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.line)

    def key(self, row: int) -> bytes:
        return bytes(self.keys[KEY * row : KEY * row + KEY])

    def where(self, row: int) -> str:
        """`file:line` of a row."""
        return f"{list(self.files)[self.file[row]]}:{self.line[row]}"

    def add(self, known: Identity, record: dict[str, Any], path: str, line: int, source: int, side: int) -> None:
        self.keys += known.key
        self.file.append(self.files.setdefault(path, len(self.files)))
        self.line.append(line)
        self.source.append(source)
        self.side.append(side)
        self.lengths.extend((len(known.asked), len(known.answered)))
        self.loose.append(number((known.asked, known.answered)))
        self.prompt.append(known.prompt)
        if known.opening:
            self.opening.append(known.opening)
            self.opened.append(len(self) - 1)
        category = record.get("category")
        self.category.append(self.categories.setdefault(category, len(self.categories)) if category else -1)
        self.tie(len(self) - 1, record)
        self.shingles.add(known.asked, known.answered)

    def tie(self, row: int, record: dict[str, Any]) -> None:
        """Tie a row to the group of a record: its own, or an exact duplicate of it."""
        if "group" in record:
            self.group.append(self.groups.setdefault(record["group"], len(self.groups)))
            self.grouped.append(row)


class Kin(NamedTuple):
    """cluster: the name of each clustered row's cluster; removed: rows that repeat another, and which.

    sizes: how many rows are left in each cluster.
    """

    cluster: dict[int, bytes]
    removed: dict[int, int]
    sizes: list[int]


def related(rows: Rows, threshold: float | Literal[False], copied: Container[int] = ()) -> Kin:
    """Gather the rows into clusters, and find out which of them only repeat an earlier one.

    threshold: data.near_duplicates; copied: rows that are removed already. What belongs together does not depend on
    the order of the rows; which of two near duplicates stays does: the first.
    """
    near = Near(rows.shingles, threshold or KIN_WHEN_OFF)
    alike = Clusters(len(rows))
    alike.join_equal(*sharing(rows, "wording"))
    for one, other in near.pairs(rank(rows)):
        alike.join(one, other)
    families = alike.members()
    removed: dict[int, int] = {}
    if threshold:
        for family in families.values():
            removed |= _repeats([row for row in family if row not in copied], rows, near)
    clusters = Clusters(len(rows))
    for family in families.values():
        for row in family[1:]:
            clusters.join(family[0], row)
    for what in ("question", "opening", "group"):
        clusters.join_equal(*sharing(rows, what))
    together = clusters.members()
    named = identities(together.values(), rows.key)
    sizes = [sum(row not in removed and row not in copied for row in members) for members in together.values()]
    return Kin(named, removed, sizes)


def copies(rows: Rows) -> dict[int, int]:
    """Rows that a source leaves free and that are the same as one whose side a source has chosen, and which."""
    chosen = (row for row in range(len(rows)) if rows.side[row])
    found = ((rows.first.get(rows.key(row)), row) for row in chosen)
    return {copy: row for copy, row in found if copy is not None}


def rank(rows: Rows) -> np.ndarray:
    """Each row's place in the order of the keys, which is the same however the rows come."""
    keys = np.frombuffer(bytes(rows.keys), ">u8").reshape(-1, 2)
    places = np.empty(len(rows), np.int64)
    places[np.lexsort((keys[:, 1], keys[:, 0]))] = np.arange(len(rows))
    return places


def _repeats(family: list[int], rows: Rows, near: Near) -> dict[int, int]:
    """Those of a family that repeat a kept one, and which: the first stays, or one whose side a source has chosen."""
    kept: list[int] = []
    removed: dict[int, int] = {}
    for row in sorted(family, key=lambda row: (not rows.side[row], row)):
        for earlier in kept[:COMPARED]:
            same = rows.loose[row] == rows.loose[earlier]
            if rows.side[row] in (0, rows.side[earlier]) and (same or near.repeats(earlier, row)):
                removed[row] = earlier
                break
        else:
            kept.append(row)
    return removed


def sharing(rows: Rows, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and their 64-bit keys of what they may share: the whole row, its wording, question, opening or group."""
    if what == "row":
        return np.arange(len(rows)), np.frombuffer(bytes(rows.keys), np.uint64)[:: KEY // 8]
    if what == "opening":
        return np.array(rows.opened, np.int64), np.array(rows.opening, np.uint64)
    if what == "group":
        return np.array(rows.grouped, np.int64), np.array(rows.group, np.uint64)
    keys = np.array(rows.loose if what == "wording" else rows.prompt, np.uint64)
    told = np.flatnonzero(keys) if what == "question" else np.arange(len(keys))
    return told, keys[told]
