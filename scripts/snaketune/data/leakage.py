"""The check for leaks over the final splits, whoever made them: rows that belong together and stand on two sides."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from snaketune.data.deduplication import KIN_WHEN_OFF, SIDES, Rows, rank, sharing
from snaketune.data.minhash import Near
from snaketune.data.row_keys import identify
from snaketune.data.shingles import Shingles
from snaketune.errors import DataError
from snaketune.files import StrPath, read_json, write_json

WHY = {
    "row": "the same row",
    "wording": "the same row but for capitals and punctuation",
    "question": "the same question",
    "opening": "the same first question",
    "group": "the same group",
    "near": "nearly the same row",
}
LISTED = 100  # pairs in leaks.json
SHOWN = 5  # pairs in a message


def run(config: dict[str, Any], train: StrPath, valid: StrPath, test: StrPath, leaks: StrPath) -> dict[str, Any]:
    """Look for leaks between three files of records; write leaks.json, and return it.

    config: {"on_leakage", "near_duplicates", "shingles"} of the data section. leaks.json: pairs (how many), rows (of
    each split), affected (how many rows of each split belong together with a row of another), by (how many pairs of
    each kind), listed (the first of them: why, and the two rows with their splits), action (fail or warn).
    """
    with tempfile.TemporaryDirectory() as scratch:
        rows = Rows(Shingles(Path(scratch) / "shingles", config["shingles"]))
        for side, path in enumerate((train, valid, test), 1):
            for record in _records(path):
                rows.add(identify(record), record, record["source"], record["line"], 0, side)
        rows.shingles.finish()
        affected = np.zeros(len(rows), bool)
        found = list(_crossing(rows, config["near_duplicates"] or KIN_WHEN_OFF, affected)) if len(rows) else []
        rows.shingles.close()
    listed = [
        {"why": WHY[what], "rows": [{"split": SIDES[rows.side[row]], "row": rows.where(row)} for row in pair]}
        for what, *pair in found[:LISTED]
    ]
    by = {why: count for what, why in WHY.items() if (count := sum(one[0] == what for one in found))}
    splits = np.array(rows.side)
    written = {
        "pairs": len(found),
        "rows": {name: int((splits == number).sum()) for number, name in enumerate(SIDES) if name},
        "affected": {name: int(affected[splits == number].sum()) for number, name in enumerate(SIDES) if name},
        "by": by,
        "action": config["on_leakage"],
        "listed": listed,
    }
    write_json(leaks, written)
    return written


def _crossing(rows: Rows, threshold: float, affected: np.ndarray) -> Iterator[tuple[str, int, int]]:
    """Why and which two rows on different sides belong together; each pair once, by its strongest reason.

    Of many rows that share something, one pair is named for each side that it reaches. All of them are marked in
    `affected`, one bool a row.
    """
    sides = np.array(rows.side)
    seen: set[tuple[int, int]] = set()
    for what in ("row", "wording", "question", "opening", "group"):
        members, keys = sharing(rows, what)
        order = np.lexsort((members, sides[members], keys))
        members, keys = members[order], keys[order]
        first = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))  # where a run of equal keys begins
        of_run = np.repeat(first, np.diff(first, append=len(keys)))
        turns = np.flatnonzero(np.diff(sides[members], prepend=0) != 0)  # where the side changes
        turns = turns[of_run[turns] != turns]
        affected[members[np.isin(of_run, of_run[turns])]] = True
        for pair in sorted(zip(members[of_run[turns]].tolist(), members[turns].tolist(), strict=True)):
            if pair not in seen:
                seen.add(pair)
                yield what, *pair
    for one, other in sorted(Near(rows.shingles, threshold).pairs(rank(rows), sides)):
        pair = (one, other) if sides[one] < sides[other] else (other, one)
        affected[list(pair)] = True
        if pair not in seen:
            yield "near", *pair


def _records(path: StrPath) -> Iterator[dict[str, Any]]:
    read = msgspec.json.Decoder().decode
    with open(path, "rb", buffering=1 << 20) as lines:
        yield from map(read, lines)


def check(leaks: StrPath) -> None:
    """Raise DataError for the pairs in leaks.json, when they are to fail the run."""
    found = read_json(leaks)
    if found["pairs"] and found["action"] == "fail":
        raise DataError(
            f"{in_words(found)} the same as rows of another split, nearly the same, or belong together with them:"
            f"{_shown(found)}\n",
            where="data.on_leakage",
            why="Scores on rows that were trained on say nothing about new ones",
            fix="Take these rows out of one side, or let snaketune divide the rows (a source without `split`); "
            "`data.on_leakage: warn` goes on all the same",
        )


def in_words(found: dict[str, Any]) -> str:
    """The affected rows of leaks.json, as the beginning of a sentence: "43 of 123 valid rows and ... test rows are"."""
    counts = [(count, found["rows"][name], name) for name, count in found["affected"].items() if count]
    *most, last = [f"{count} of {rows} {name} rows" for count, rows, name in counts]
    return f"{', '.join(most)} and {last} are" if most else f"{last} are"


def _shown(found: dict[str, Any]) -> str:
    pairs = [(one["why"], *one["rows"]) for one in found["listed"][:SHOWN]]
    return "".join(f"\n  {why}: {a['row']} ({a['split']}) and {b['row']} ({b['split']})" for why, a, b in pairs)
