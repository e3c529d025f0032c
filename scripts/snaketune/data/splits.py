"""Splits that are honest and stable: whole clusters, assigned by a keyed hash of their identity.

A row changes sides only if its own cluster gains or loses members; growing or shuffling the data moves nothing else.
Each split is written in an order by another keyed hash, so that its first n rows are a random sample of it that stays
nested as n or the data grow: the pilot takes the first rows of train.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from snaketune.errors import ConfigError
from snaketune.files import StrPath, write_json, writing_jsonl

NAMES = ("train", "valid", "test")


class Kin(msgspec.Struct):
    """What the split needs to know of a record."""

    id: str
    cluster: str | None = None
    split: str | None = None
    category: str | None = None


def run(
    config: dict[str, Any], records: StrPath, train: StrPath, valid: StrPath, test: StrPath, split: StrPath
) -> dict[str, Any]:
    """Divide records.jsonl into three files; write split.json, and return it.

    config: {"split": shares and exact, "seed"}. Raises ConfigError for shares that do not add up to 1.
    """
    shares, seed = shares_of(config["split"]), config["seed"]
    with _mapped(records) as text:
        kin, places = _kin(text)
        sides = assigned(kin, shares, seed, config["split"]["exact"])
        order = sorted(range(len(kin)), key=[keyed(one.id, seed).order for one in kin].__getitem__)
        for name, path in zip(NAMES, (train, valid, test), strict=True):
            with writing_jsonl(path) as out:
                for row in order:
                    if sides[row] == name:
                        out.write(text[places[row] : places[row + 1]])
    written = described(kin, sides, shares, config)
    write_json(split, written)
    return written


def shares_of(split: dict[str, Any]) -> dict[str, float]:
    """The three shares of the configuration, which must add up to 1."""
    shares = {name: float(split[name]) for name in NAMES}
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(
            f"the shares of train, valid and test add up to {sum(shares.values()):g}, not 1",
            where="data.split",
            mend="For instance {train: 0.8, valid: 0.1, test: 0.1}",
        )
    return shares


@contextlib.contextmanager
def _mapped(path: StrPath) -> Iterator[Any]:
    """A file's bytes, without reading it into memory."""
    with open(path, "rb") as content:
        if Path(path).stat().st_size == 0:
            yield b""
        else:
            with mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield mapped


def _kin(text: Any) -> tuple[list[Kin], array[int]]:
    """What the split needs to know of each record, and where each begins and the last one ends."""
    read = msgspec.json.Decoder(Kin).decode
    kin: list[Kin] = []
    places = array("q", [0])
    while places[-1] < len(text):
        end = text.find(b"\n", places[-1]) + 1
        kin.append(read(text[places[-1] : end]))
        places.append(end)
    return kin, places


def assigned(kin: list[Kin], shares: dict[str, float], seed: int, exact: bool = False) -> list[str]:
    """The side of each row: where its source puts it or a row of its cluster, or else where its cluster falls.

    exact: clusters are dealt out in the order of their hashes until each side has its share of every category.
    """
    declared = {one.cluster: one.split for one in reversed(kin) if one.cluster and one.split}
    free: dict[str, list[Kin]] = {}
    for one in kin:
        if not one.split and one.cluster not in declared:
            free.setdefault(one.cluster or one.id, []).append(one)
    fallen = dealt(free, shares, seed) if exact else {name: side_of(name, shares, seed) for name in free}
    return [one.split or declared.get(one.cluster or "") or fallen[one.cluster or one.id] for one in kin]


def side_of(cluster: str, shares: dict[str, float], seed: int) -> str:
    """Where a cluster falls: its keyed hash, from 0 to 1, among the shares laid end to end."""
    return _among(shares, keyed(cluster, seed).side / 2.0**64)


def dealt(clusters: dict[str, list[Kin]], shares: dict[str, float], seed: int) -> dict[str, str]:
    """The side of each cluster such that the counts meet the shares in every category, to within one cluster."""
    rows: Counter[str] = Counter()
    sides: dict[str, str] = {}
    kinds = {name: min(one.category or "" for one in members) for name, members in clusters.items()}
    total = Counter(kinds[name] for name, members in clusters.items() for _ in members)
    for name in sorted(clusters, key=lambda name: keyed(name, seed).side):
        kind, size = kinds[name], len(clusters[name])
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


def described(kin: list[Kin], sides: list[str], shares: dict[str, float], config: dict[str, Any]) -> dict[str, Any]:
    """split.json: how many rows stand where, how and why, and what is odd about it."""
    rows = Counter(sides)
    categories: dict[str, Counter[str]] = {}
    for one, side in zip(kin, sides, strict=True):
        if one.category:
            categories.setdefault(one.category, Counter())[side] += 1
    warnings = [
        f"{name} has no row: {len(kin)} rows are too few for a share of {shares[name]:g}; add rows, raise "
        f"data.split.{name}, or set data.split.exact"
        for name in NAMES
        if shares[name] and not rows[name]
    ]
    warnings += [
        f'the category "{name}" has no row in {side}'
        for name, counts in sorted(categories.items())
        for side in NAMES
        if shares[side] and rows[side] and not counts[side]
    ]
    sizes = [size for size in Counter(one.cluster for one in kin if one.cluster).values() if size > 1]
    return {
        "rows": {name: rows[name] for name in NAMES},
        "shares": shares,
        "method": "exact counts" if config["split"]["exact"] else "keyed hash of each cluster",
        "seed": config["seed"],
        "clusters": len(sizes),
        "clustered_rows": sum(sizes),
        "declared_rows": sum(1 for one in kin if one.split),
        "categories": {name: {side: counts[side] for side in NAMES} for name, counts in sorted(categories.items())},
        "warnings": warnings,
    }
