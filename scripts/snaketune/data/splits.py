"""Splits that are honest and stable: whole clusters, assigned by a keyed hash of their identity.

A row changes sides only if its own cluster gains or loses members; growing or shuffling the data moves nothing else.
Each split is written in an order by another keyed hash, so that its first n rows are a random sample of it that stays
nested as n or the data grow: the pilot takes the first rows of train.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np

from snaketune.errors import ConfigError
from snaketune.files import StrPath, write_json, writing_jsonl

NAMES = ("train", "valid", "test")


class Kin(msgspec.Struct):
    """What the split needs to know of a record."""

    id: str
    cluster: str | None = None
    split: str | None = None
    category: str | None = None


@dataclass
class Places:
    """Where each record begins and the last one ends in records.jsonl, and by what a split is put in order."""

    starts: array[int]
    orders: array[int]

    def __len__(self) -> int:
        return len(self.orders)


@dataclass
class Families:
    """What the rows of a cluster have in common: where one of them was put, and how many there are."""

    declared: dict[str, str]
    sizes: Counter[str]


def run(
    config: dict[str, Any], records: StrPath, train: StrPath, valid: StrPath, test: StrPath, split: StrPath
) -> dict[str, Any]:
    """Divide records.jsonl into three files; write split.json, and return it.

    config: {"split": shares and exact, "seed"}. Raises ConfigError for shares that do not add up to 1. The records are
    read twice and held never; memory holds 17 bytes a row and the clusters (with `exact`, every row's name).
    """
    shares, seed = shares_of(config["split"]), config["seed"]
    with open(records, "rb") as text:
        places, families = _surveyed(text, seed)
        fallen = dealt(_free(text, families), shares, seed) if config["split"]["exact"] else None
        sides, counts = array("B"), Counts(Counter(), {}, 0)
        for one, _ in _kin(text):
            side = one.split or families.declared.get(one.cluster or "")
            if not side:
                name = one.cluster or one.id
                side = fallen[name] if fallen is not None else side_of(name, shares, seed)
            sides.append(NAMES.index(side))
            counts.take(one, side)
        order = np.argsort(np.array(places.orders, np.uint64), kind="stable")
        order_sides = np.array(sides, np.uint8)[order]
        for number, path in enumerate((train, valid, test)):
            with writing_jsonl(path) as out:
                for row in order[order_sides == number].tolist():
                    start, end = places.starts[row], places.starts[row + 1]
                    out.write(os.pread(text.fileno(), end - start, start))
    written = described(counts, families, shares, config)
    write_json(split, written)
    return written


def shares_of(split: dict[str, Any]) -> dict[str, float]:
    """The three shares of the configuration, which must add up to 1."""
    shares = {name: float(split[name]) for name in NAMES}
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(
            f"the shares of train, valid and test add up to {sum(shares.values()):g}, not 1",
            where="data.split",
            fix="For instance {train: 0.8, valid: 0.1, test: 0.1}",
        )
    return shares


def _kin(text: IO[bytes]) -> Iterator[tuple[Kin, int]]:
    """What the split needs to know of each record, one after another, and its length in bytes."""
    read = msgspec.json.Decoder(Kin).decode
    text.seek(0)
    for line in text:
        yield read(line), len(line)


def _surveyed(text: IO[bytes], seed: int) -> tuple[Places, Families]:
    places = Places(array("q", [0]), array("Q"))
    families = Families({}, Counter())
    for one, length in _kin(text):
        places.starts.append(places.starts[-1] + length)
        places.orders.append(keyed(one.id, seed).order)
        if one.cluster:
            families.sizes[one.cluster] += 1
            if one.split:
                families.declared.setdefault(one.cluster, one.split)
    return places, families


def _free(text: IO[bytes], families: Families) -> dict[str, tuple[int, str]]:
    """The clusters that no source puts on a side: how many rows each has, and the first of their categories."""
    free: dict[str, tuple[int, str]] = {}
    for one, _ in _kin(text):
        if not one.split and one.cluster not in families.declared:
            name, category = one.cluster or one.id, one.category or ""
            size, kind = free.get(name, (0, category))
            free[name] = size + 1, min(kind, category)
    return free


def side_of(cluster: str, shares: dict[str, float], seed: int) -> str:
    """Where a cluster falls: its keyed hash, from 0 to 1, among the shares laid end to end."""
    return _among(shares, keyed(cluster, seed).side / 2.0**64)


def dealt(clusters: dict[str, tuple[int, str]], shares: dict[str, float], seed: int) -> dict[str, str]:
    """The side of each cluster such that the counts meet the shares in every category, to within one cluster.

    clusters: size and category by name.
    """
    rows: Counter[str] = Counter()
    sides: dict[str, str] = {}
    total: Counter[str] = Counter()
    for size, kind in clusters.values():
        total[kind] += size
    for name in sorted(clusters, key=lambda name: keyed(name, seed).side):
        size, kind = clusters[name]
        sides[name] = _among(shares, (rows[kind] + size / 2) / total[kind])
        rows[kind] += size
    return sides


def _among(shares: dict[str, float], point: float) -> str:
    for name in NAMES[:-1]:
        if point < shares[name]:
            return name
        point -= shares[name]
    return NAMES[-1] if shares[NAMES[-1]] else max(shares, key=shares.__getitem__)


class Keyed(NamedTuple):
    """Two independent 64-bit numbers: by which a side is chosen, and by which a split is put in order."""

    side: int
    order: int


def keyed(name: str, seed: int) -> Keyed:
    """The numbers of a row or a cluster, for a seed."""
    digest = hashlib.blake2b(name.encode(), digest_size=16, key=seed.to_bytes(8, "little")).digest()
    return Keyed(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))


@dataclass
class Counts:
    """How many rows stand where, in all and of each category, and how many of them a source put there."""

    rows: Counter[str]
    categories: dict[str, Counter[str]]
    declared: int

    def take(self, one: Kin, side: str) -> None:
        self.rows[side] += 1
        self.declared += one.split is not None
        if one.category:
            self.categories.setdefault(one.category, Counter())[side] += 1


def described(counts: Counts, families: Families, shares: dict[str, float], config: dict[str, Any]) -> dict[str, Any]:
    """split.json: how many rows stand where, how and why, and what is odd about it."""
    rows, categories = counts.rows, counts.categories
    warnings = [
        f"{name} has no row: {rows.total()} rows are too few for a share of {shares[name]:g}; add rows, raise "
        f"data.split.{name}, or set data.split.exact"
        for name in NAMES
        if shares[name] and not rows[name]
    ]
    warnings += [
        f'the category "{name}" has no row in {side}'
        for name, found in sorted(categories.items())
        for side in NAMES
        if shares[side] and rows[side] and not found[side]
    ]
    sizes = [size for size in families.sizes.values() if size > 1]
    return {
        "rows": {name: rows[name] for name in NAMES},
        "shares": shares,
        "method": "exact counts" if config["split"]["exact"] else "keyed hash of each cluster",
        "seed": config["seed"],
        "clusters": len(sizes),
        "clustered_rows": sum(sizes),
        "declared_rows": counts.declared,
        "categories": {name: {side: found[side] for side in NAMES} for name, found in sorted(categories.items())},
        "warnings": warnings,
    }
