"""Checks the final splits for leakage: rows that belong together and are in different splits, whoever split them.

It computes the keys, shingles and near duplicates of the rows again, on purpose: a source may declare its split, and
the files may have been edited since validate_rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from snaketune.config.sections import LeakageConfig
from snaketune.contracts.data import SPLITS, DataRecord, LeakingRow, LeakPair, LeakReport
from snaketune.data.deduplication import (
    CLUSTER_THRESHOLD_WHEN_OFF,
    SPLIT_CODES,
    RowIndex,
    content_order,
    keys_by,
    row_keys,
)
from snaketune.data.minhash import NearDuplicateIndex, Shingles
from snaketune.errors import DataError
from snaketune.files import StrPath, read_json, write_json

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


def run(config: LeakageConfig, train: StrPath, valid: StrPath, test: StrPath, leaks: StrPath) -> LeakReport:
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
    return " and ".join([", ".join(counts[:-1]), counts[-1]]) if len(counts) > 1 else "".join(counts)
