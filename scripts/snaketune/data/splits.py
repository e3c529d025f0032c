"""Stable splits without leaks: whole clusters, assigned by a keyed hash of their ID, and the check of what came of it.

A row changes its split only if its own cluster gains or loses rows; growing or shuffling the data moves nothing else.
Each split is written in an order by another keyed hash, so that its first n rows are a random sample of it that stays
nested as n or the data grow: the pilot takes the first rows of train.

`check_leaks` looks for rows that belong together and are in different splits, whoever split them. It computes keys,
shingles and near duplicates again, on purpose: a source may declare its split, and the files may have been edited.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple

import msgspec
import numpy as np

from snaketune.config.sections import Section, SplitShares
from snaketune.contracts.data import SPLITS, DataRecord, LeakingRow, LeakPair, LeakReport, SplitName, SplitReport
from snaketune.data.deduplication import (
    CLUSTER_THRESHOLD_WHEN_OFF,
    SPLIT_CODES,
    RowIndex,
    content_order,
    keys_by,
    row_keys,
)
from snaketune.data.minhash import NearDuplicateIndex, Shingles
from snaketune.errors import ConfigError, DataError
from snaketune.files import StrPath, read_json, write_json, writing_jsonl
from snaketune.runtime.progress import format_list

KIND_LABELS = {
    "row": "the same row",
    "wording": "the same row but for capitals and punctuation",
    "question": "the same question",
    "opening": "the same first question",
    "group": "the same group",
    "near": "nearly the same row",
}
MAX_LISTED = 100  # pairs in leaks.json
MAX_IN_MESSAGE = 5  # pairs


class LeakageConfig(Section, frozen=True, kw_only=True):
    """The part of `data` that the check for leaks between the splits depends on."""

    on_leakage: Literal["fail", "warn"]
    near_duplicates: float | bool
    shingles: Literal["auto", "words", "characters"]


def check_leaks(config: LeakageConfig, train: StrPath, valid: StrPath, test: StrPath, leaks: StrPath) -> LeakReport:
    """Look for leaks between three files of records; write leaks.json, and return it."""
    with tempfile.TemporaryDirectory() as scratch:
        rows = RowIndex(Shingles(Path(scratch) / "shingles", config.shingles))
        for split, path in enumerate((train, valid, test), 1):
            for record in _records(path):
                rows.add(row_keys(record), record, record["source"], record["line"], 0, split)
        rows.shingles.seal()
        affected = np.zeros(len(rows), bool)
        threshold = config.near_duplicates or CLUSTER_THRESHOLD_WHEN_OFF
        pairs = list(_cross_split_pairs(rows, threshold, affected)) if len(rows) else []
        rows.shingles.close()
    splits = np.array(rows.split)
    report = LeakReport(
        pairs=len(pairs),
        rows={name: int((splits == code).sum()) for code, name in enumerate(SPLITS, 1)},
        affected={name: int(affected[splits == code].sum()) for code, name in enumerate(SPLITS, 1)},
        by={label: n for kind, label in KIND_LABELS.items() if (n := sum(pair[0] == kind for pair in pairs))},
        action=config.on_leakage,
        listed=[
            LeakPair(
                why=KIND_LABELS[kind],
                rows=[LeakingRow(split=SPLIT_CODES[rows.split[row]], row=rows.where(row)) for row in pair],
            )
            for kind, *pair in pairs[:MAX_LISTED]
        ],
    )
    write_json(leaks, report)
    return report


def _cross_split_pairs(rows: RowIndex, threshold: float, affected: np.ndarray) -> Iterator[tuple[str, int, int]]:
    """Yield the kind and the rows of each pair that belongs together across splits, once, by its strongest kind.

    Of many rows that share something, one pair is named for each split that they reach. All of them are marked in
    `affected`, one bool a row.
    """
    splits = np.array(rows.split)
    seen: set[tuple[int, int]] = set()
    for kind in ("row", "wording", "question", "opening", "group"):
        members, keys = keys_by(rows, kind)
        order = np.lexsort((members, splits[members], keys))
        members, keys = members[order], keys[order]
        first = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))  # where a run of equal keys begins
        run_start = np.repeat(first, np.diff(first, append=len(keys)))
        changes = np.flatnonzero(np.diff(splits[members], prepend=0) != 0)  # where the split changes
        changes = changes[run_start[changes] != changes]
        affected[members[np.isin(run_start, run_start[changes])]] = True
        for pair in sorted(zip(members[run_start[changes]].tolist(), members[changes].tolist(), strict=True)):
            if pair not in seen:
                seen.add(pair)
                yield kind, *pair
    for one, other in sorted(NearDuplicateIndex(rows.shingles, threshold).pairs(content_order(rows), splits)):
        pair = (one, other) if splits[one] < splits[other] else (other, one)
        affected[list(pair)] = True
        if pair not in seen:
            yield "near", *pair


def _records(path: StrPath) -> Iterator[DataRecord]:
    read = msgspec.json.Decoder().decode
    with open(path, "rb", buffering=1 << 20) as lines:
        yield from map(read, lines)


def check(leaks: StrPath) -> None:
    """Raise DataError for the pairs in leaks.json if `data.on_leakage` says so."""
    found = read_json(leaks, LeakReport)
    if found.pairs and found.action == "fail":
        listed = (
            f"\n  {pair.why}: {' and '.join(f'{row.row} ({row.split})' for row in pair.rows)}" for pair in found.listed
        )
        raise DataError(
            f"{affected_rows(found)} are the same as rows of another split, or nearly, or belong together with them:"
            f"{''.join(list(listed)[:MAX_IN_MESSAGE])}\n",
            where="data.on_leakage",
            why="Scores on rows that were trained on say nothing about new ones",
            fix="Take these rows out of one split, or let snaketune divide the rows (a source without `split`); "
            "`on_leakage: warn` goes on all the same",
        )


def affected_rows(found: LeakReport) -> str:
    """Count the affected rows in words: "43 of 123 valid rows and 2 of 90 test rows"; empty if there is none."""
    counts = [f"{count} of {found.rows[name]} {name} rows" for name, count in found.affected.items() if count]
    return format_list(counts)


class SplitRowsConfig(Section, frozen=True, kw_only=True):
    """The settings of split_rows."""

    split: SplitShares
    seed: int


class SplitFields(msgspec.Struct):
    """The fields of a record that its split depends on."""

    id: str
    cluster: str | None = None
    split: str | None = None
    category: str | None = None


@dataclass
class RecordOffsets:
    """Byte offsets of the records in records.jsonl (and the end of the last), and the hashes that order a split."""

    starts: array[int]
    orders: array[int]

    def __len__(self) -> int:
        return len(self.orders)


@dataclass
class ClusterInfo:
    """By cluster: the split that a source declares for one of its rows, and the number of rows."""

    declared: dict[str, str]
    sizes: Counter[str]


def run(config: SplitRowsConfig, records: StrPath, outputs: Mapping[SplitName, StrPath], split: StrPath) -> SplitReport:
    """Divide records.jsonl into one file per split; write split.json, and return it.

    Raises ConfigError for shares that do not add up to 1. The records are read twice and never held; memory holds 17
    bytes a row and the clusters (with `exact`, every row's ID).
    """
    shares, seed = shares_of(config.split), config.seed
    with open(records, "rb") as text:
        offsets, clusters_info = _first_pass(text, seed)
        assignments = (
            assign_exactly(_unassigned_clusters(text, clusters_info), shares, seed) if config.split.exact else None
        )
        codes, counts = array("B"), Counts(Counter(), {}, 0)
        for one, _ in _split_fields(text):
            assigned = one.split or clusters_info.declared.get(one.cluster or "")
            if not assigned:
                name = one.cluster or one.id
                assigned = assignments[name] if assignments is not None else assign_split(name, shares, seed)
            codes.append(SPLITS.index(assigned))
            counts.add(one, assigned)
        order = np.argsort(np.array(offsets.orders, np.uint64), kind="stable")
        ordered_codes = np.array(codes, np.uint8)[order]
        for code, name in enumerate(SPLITS):
            with writing_jsonl(outputs[name]) as out:
                for row in order[ordered_codes == code].tolist():
                    start, end = offsets.starts[row], offsets.starts[row + 1]
                    out.write(os.pread(text.fileno(), end - start, start))
    written = split_report(counts, clusters_info, shares, config)
    write_json(split, written)
    return written


def shares_of(split: SplitShares) -> dict[str, float]:
    """The three shares of the configuration, which must add up to 1."""
    shares = {"train": split.train, "valid": split.valid, "test": split.test}
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(
            f"the shares of train, valid and test add up to {sum(shares.values()):g}, not 1",
            where="data.split",
            fix="For instance {train: 0.8, valid: 0.1, test: 0.1}",
        )
    return shares


def _split_fields(text: IO[bytes]) -> Iterator[tuple[SplitFields, int]]:
    """Yield the fields of each record that its split depends on, and its length in bytes."""
    read = msgspec.json.Decoder(SplitFields).decode
    text.seek(0)
    for line in text:
        yield read(line), len(line)


def _first_pass(text: IO[bytes], seed: int) -> tuple[RecordOffsets, ClusterInfo]:
    offsets = RecordOffsets(array("q", [0]), array("Q"))
    clusters_info = ClusterInfo({}, Counter())
    for one, length in _split_fields(text):
        offsets.starts.append(offsets.starts[-1] + length)
        offsets.orders.append(keyed_hash(one.id, seed).order)
        if one.cluster:
            clusters_info.sizes[one.cluster] += 1
            if one.split:
                clusters_info.declared.setdefault(one.cluster, one.split)
    return offsets, clusters_info


def _unassigned_clusters(text: IO[bytes], clusters_info: ClusterInfo) -> dict[str, tuple[int, str]]:
    """The clusters without a declared split: their number of rows, and the first of their categories."""
    free: dict[str, tuple[int, str]] = {}
    for one, _ in _split_fields(text):
        if not one.split and one.cluster not in clusters_info.declared:
            name, category = one.cluster or one.id, one.category or ""
            size, kind = free.get(name, (0, category))
            free[name] = size + 1, min(kind, category)
    return free


def assign_split(cluster: str, shares: dict[str, float], seed: int) -> str:
    """The split of a cluster: where its keyed hash, from 0 to 1, falls among the cumulative shares."""
    return _split_at(shares, keyed_hash(cluster, seed).point / 2.0**64)


def assign_exactly(clusters: dict[str, tuple[int, str]], shares: dict[str, float], seed: int) -> dict[str, str]:
    """Assign clusters such that the counts meet the shares in every category, to within one cluster.

    clusters: size and category by name.
    """
    rows: Counter[str] = Counter()
    splits: dict[str, str] = {}
    total: Counter[str] = Counter()
    for size, kind in clusters.values():
        total[kind] += size
    for name in sorted(clusters, key=lambda name: keyed_hash(name, seed).point):
        size, kind = clusters[name]
        splits[name] = _split_at(shares, (rows[kind] + size / 2) / total[kind])
        rows[kind] += size
    return splits


def _split_at(shares: dict[str, float], point: float) -> str:
    for name in SPLITS[:-1]:
        if point < shares[name]:
            return name
        point -= shares[name]
    return SPLITS[-1] if shares[SPLITS[-1]] else max(shares, key=shares.__getitem__)


class KeyedHash(NamedTuple):
    """Two independent 64-bit hashes: `point`, among the shares, chooses the split; `order` orders its rows."""

    point: int
    order: int


def keyed_hash(name: str, seed: int) -> KeyedHash:
    """The keyed hashes of a row or cluster ID, for a seed."""
    digest = hashlib.blake2b(name.encode(), digest_size=16, key=seed.to_bytes(8, "little")).digest()
    return KeyedHash(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))


@dataclass
class Counts:
    """Rows per split, in all and per category, and how many have a declared split."""

    rows: Counter[str]
    categories: dict[str, Counter[str]]
    declared: int

    def add(self, one: SplitFields, split: str) -> None:
        self.rows[split] += 1
        self.declared += one.split is not None
        if one.category:
            self.categories.setdefault(one.category, Counter())[split] += 1


def split_report(
    counts: Counts, clusters_info: ClusterInfo, shares: dict[str, float], config: SplitRowsConfig
) -> SplitReport:
    """Build split.json, with a warning for each split or category that came out empty."""
    rows, categories = counts.rows, counts.categories
    warnings = [
        f"{name} has no row: {rows.total()} rows are too few for a share of {shares[name]:g}; add rows, raise "
        f"data.split.{name}, or set data.split.exact"
        for name in SPLITS
        if shares[name] and not rows[name]
    ]
    warnings += [
        f'the category "{name}" has no row in {split}'
        for name, found in sorted(categories.items())
        for split in SPLITS
        if shares[split] and rows[split] and not found[split]
    ]
    sizes = [size for size in clusters_info.sizes.values() if size > 1]
    return SplitReport(
        rows={name: rows[name] for name in SPLITS},
        shares=shares,
        method="exact counts" if config.split.exact else "keyed hash of each cluster",
        seed=config.seed,
        clusters=len(sizes),
        clustered_rows=sum(sizes),
        declared_rows=counts.declared,
        categories={name: {split: found[split] for split in SPLITS} for name, found in sorted(categories.items())},
        warnings=warnings,
    )
