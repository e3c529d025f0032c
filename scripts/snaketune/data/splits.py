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
from typing import Any

import msgspec

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
) -> None:
    """Divide records.jsonl. config: {"split": shares, "seed"}."""
    shares, seed = config["split"], config["seed"]
    with _mapped(records) as text:
        kin, places = _kin(text)
        sides = assigned(kin, shares, seed)
        order = sorted(range(len(kin)), key=[keyed(one.id, seed, b"order") for one in kin].__getitem__)
        for name, path in zip(NAMES, (train, valid, test), strict=True):
            with writing_jsonl(path) as out:
                for row in order:
                    if sides[row] == name:
                        out.write(text[places[row] : places[row + 1]])
    write_json(split, described(kin, sides, shares, seed))


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


def assigned(kin: list[Kin], shares: dict[str, float], seed: int) -> list[str]:
    """The side of each row: where its source puts it, or else where its cluster's keyed hash falls."""
    declared = {one.cluster: one.split for one in reversed(kin) if one.cluster and one.split}
    sides = []
    for one in kin:
        side = one.split or (declared.get(one.cluster) if one.cluster else None)
        sides.append(side or side_of(one.cluster or one.id, shares, seed))
    return sides


def side_of(cluster: str, shares: dict[str, float], seed: int) -> str:
    """Where a cluster falls: its keyed hash, from 0 to 1, among the shares laid end to end."""
    point = keyed(cluster, seed, b"side") / 2.0**64
    for name in NAMES[:-1]:
        if point < shares[name]:
            return name
        point -= shares[name]
    return NAMES[-1]


def keyed(name: str, seed: int, purpose: bytes) -> int:
    """A 64-bit number from a name, independent for each seed and purpose."""
    key = seed.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=key, person=purpose).digest(), "little")


def described(kin: list[Kin], sides: list[str], shares: dict[str, float], seed: int) -> dict[str, Any]:
    """split.json: how many rows stand where, how and why."""
    counts = Counter(sides)
    return {
        "rows": {name: counts[name] for name in NAMES},
        "shares": shares,
        "seed": seed,
        "clusters": len({one.cluster for one in kin if one.cluster}),
        "declared": sum(1 for one in kin if one.split),
    }
