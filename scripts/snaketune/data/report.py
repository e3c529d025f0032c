"""What became of the rows, counted and explained: report.json, the messages that stop a run, and advice."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from snaketune.data.deduplication import Kin, Rows
from snaketune.data.readers.dispatch import recode
from snaketune.data.rejection import REASONS, Rejection
from snaketune.errors import DataError

LIKELY = {  # how columns begin that hold prompts and responses
    "prompt": ("prompt", "quest", "frage", "instru", "input", "eingabe", "pregunta", "domanda", "user", "source"),
    "response": (
        "respo",
        "answ",
        "antwort",
        "output",
        "ausgabe",
        "réponse",
        "respuesta",
        "risposta",
        "target",
        "compl",
    ),
}
SHOWN = 5  # reasons in a message
EXAMPLES = 3  # of each reason in the report


class Tally:
    """What became of the rows of one source. name: its path as configured; fields: the names it maps."""

    def __init__(self, name: str, fields: dict[str, str] | None = None) -> None:
        self.name = name
        self.fields = fields or {}
        self.read = self.duplicates = self.near_duplicates = 0
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.columns: list[str] = []  # of the first row that was rejected for its fields

    @property
    def kept(self) -> int:
        return self.read - self.reasons.total() - self.duplicates - self.near_duplicates

    def reject(self, reason: Rejection, where: str, row: Any = None) -> None:
        self.reasons[reason.code] += 1
        if reason.code in ("unknown-format", "missing-field") and not self.columns and type(row) is dict:
            self.columns = [str(name) for name in row][:12]
        examples = self.examples.setdefault(reason.code, [])
        if len(examples) < EXAMPLES:
            examples.append(f"{where}: {reason.detail}")

    def refuse_if_empty(self) -> None:
        """Stop at a source without a usable row."""
        if not self.read:
            raise DataError("there are no rows in it", where=self.name, fix="Name the file that holds the data")
        if self.reasons.total() == self.read:
            raise DataError(
                f"none of its {self.read} rows can be used, in any format known here:{_commonest([self])}\n",
                where=self.name,
                fix=self._mapping_advice(),
            )

    def _mapping_advice(self) -> str:
        """How to name this source's own columns in the configuration."""
        fields = suggested_fields(self.columns, self.fields)
        if not fields:
            return "If only the names of the fields differ, name yours in this source's `fields`"
        mapping = ", ".join(f"{ours}: {_yaml(yours)}" for ours, yours in fields.items())
        wrong = [yours for yours in self.fields.values() if yours not in self.columns]
        return (
            f"Its columns are {', '.join(self.columns)}"
            + (f"; `fields` names {', '.join(wrong)}, which it does not have" if wrong else "")
            + f". If it is only their names, write:\n  - {{path: {_yaml(self.name)}, fields: {{{mapping}}}}}\n"
        )


def suggested_fields(columns: list[str], fields: dict[str, str]) -> dict[str, str]:
    """What a source's `fields` should probably say, by the names of its columns; empty where nothing suggests itself.

    fields: what it says now; what is right in it stays, and the rest is looked for among the other columns.
    """
    found = {ours: yours for ours, yours in fields.items() if yours in columns}
    free = [name for name in columns if name not in found.values()]
    for ours, yours in fields.items():
        if ours not in found and (near := get_close_matches(yours, free, n=1)):
            found[ours] = near[0]
            free.remove(near[0])
    if not fields and len(columns) == 1:
        return {"text": columns[0]}
    if fields and not {"prompt", "response"} & fields.keys():
        return found
    for ours in ("prompt", "response"):
        if ours not in found and free:
            known = [name for name in free if name.casefold().startswith(LIKELY[ours])]
            found[ours] = (known or free)[0]
            free.remove(found[ours])
    return found if {"prompt", "response"} <= found.keys() else {}


def _yaml(text: str) -> str:
    """A text as it may stand inside of braces in YAML."""
    return text if re.fullmatch(r"[^\W\d_][\w./ -]*[\w]|[^\W\d_]", text) else json.dumps(text, ensure_ascii=False)


def refuse_if_too_many(tallies: list[Tally], allowed: float, rejected: Path) -> None:
    """Stop when a larger share of all rows than `allowed` is rejected; rejected: where they can be looked at."""
    read, bad = sum(tally.read for tally in tallies), sum(tally.reasons.total() for tally in tallies)
    if bad > allowed * read:
        raise DataError(
            f"{bad} of {read} rows ({bad / read:.1%}) cannot be used, and data.max_rejected allows {allowed:.1%}:"
            f"{_commonest(tallies)}\n",
            where="data",
            fix=_recoding_advice(tallies)
            + f"Fix the rows listed in {rejected}, or raise data.max_rejected to accept losing them",
        )


def _recoding_advice(tallies: list[Tally]) -> str:
    """For sources of which more than a tenth is not UTF-8: the command that makes it so."""
    bad = [tally.name for tally in tallies if tally.reasons["bad-encoding"] > 0.1 * tally.read]
    return "".join(
        f"{name} is not UTF-8: if it comes from Windows, name a copy made with `{recode(name, 'WINDOWS-1252')}`. "
        for name in bad
    )


def _commonest(tallies: list[Tally]) -> str:
    reasons, examples = _together(tallies)
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    return "".join(f"\n  {count:>7} {code}: {REASONS[code]}. For example {examples[code][0]}" for code, count in ranked)


def _together(tallies: list[Tally]) -> tuple[Counter[str], dict[str, list[str]]]:
    reasons: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for tally in tallies:
        reasons += tally.reasons
        for code, found in tally.examples.items():
            examples[code] = (examples.get(code, []) + found)[:EXAMPLES]
    return reasons, examples


def counted(tallies: list[Tally]) -> dict[str, Any]:
    """The counts of report.json, which add up: read = kept + rejected + duplicates + near_duplicates."""
    reasons, examples = _together(tallies)
    total = {name: sum(getattr(tally, name) for tally in tallies) for name in ("read", "kept")}
    return {
        **total,
        "rejected": reasons.total(),
        "duplicates": sum(tally.duplicates for tally in tallies),
        "near_duplicates": sum(tally.near_duplicates for tally in tallies),
        "reasons": {code: reasons[code] for code in REASONS if reasons[code]},
        "examples": {code: examples[code] for code in REASONS if reasons[code]},
        "sources": [
            {
                "source": tally.name,
                "read": tally.read,
                "kept": tally.kept,
                "rejected": tally.reasons.total(),
                "duplicates": tally.duplicates,
                "near_duplicates": tally.near_duplicates,
            }
            for tally in tallies
        ],
    }


def histogram(lengths: np.ndarray) -> list[dict[str, int]]:
    """How many lengths lie in each of classes that double: {"from", "to" (not included), "rows"}."""
    if not len(lengths):
        return []
    bounds = [0, 16]
    while bounds[-1] <= lengths.max():
        bounds.append(2 * bounds[-1])
    counts, _ = np.histogram(lengths, bounds)
    return [
        {"from": low, "to": high, "rows": count}
        for low, high, count in zip(bounds[:-1], bounds[1:], counts.tolist(), strict=True)
    ]


def quantiles(lengths: np.ndarray) -> dict[str, int]:
    """The smallest, middle, 95th of a hundred, and largest length."""
    places = {"smallest": 0.0, "median": 0.5, "p95": 0.95, "largest": 1.0}
    ordered = np.sort(lengths)
    return (
        {name: int(ordered[int(share * (len(ordered) - 1))]) for name, share in places.items()} if len(ordered) else {}
    )


def advice(report: dict[str, Any]) -> list[str]:
    """What the counts suggest, in sentences; the row counts are the field's own rules of thumb."""
    kept, said = report["kept"], []
    if kept < 1000:
        goal = (
            "enough for a style at best (10 to 50 rows, 100 to 200 are better)"
            if kept < 50
            else "enough for a style or a small task; domain knowledge wants 1,000 or more"
            if kept < 500
            else "enough for a task; domain knowledge wants 1,000 or more, broad skill 5,000"
        )
        said.append(f"{kept} usable rows are {goal}.")
    if report["near_duplicates"] > 0.2 * report["read"]:
        said.append(
            f"{report['near_duplicates']} rows were removed as near duplicates; look at the examples, and raise "
            "data.near_duplicates or set it to false if they should count as different."
        )
    if report["duplicates"] > 0.2 * report["read"]:
        said.append(
            "More than a fifth of the rows are exact duplicates; to show rows more often, use a source's weight."
        )
    shared = report["same_prompt"]
    if shared["rows"] > 0.1 * max(kept, 1):
        said.append(
            f"{shared['rows']} rows share their question with another answer; where the answers contradict each "
            "other, the model learns a mixture."
        )
    largest = report["clusters"]["largest"]
    if largest > max(0.2 * kept, 10):
        said.append(
            f"{largest} rows hang together (near duplicates, one question or one group) and must stand on one side "
            "of the split, so the splits may come out far from their shares."
        )
    return said


def described(rows: Rows, kin: Kin, gone: Collection[int]) -> dict[str, Any]:
    """The part of report.json that tells about the rows as a whole; counts are of kept rows."""
    kept = np.ones(len(rows), bool)
    kept[list(gone)] = False
    lengths = np.array(rows.lengths, np.int64).reshape(-1, 2)[kept]
    total, places = lengths.sum(axis=1), np.flatnonzero(kept)
    order = places[np.argsort(total, kind="stable")]
    prompts = np.array(rows.prompt, np.uint64)[kept]
    _, first, which, counts = np.unique(prompts, return_index=True, return_inverse=True, return_counts=True)
    shared = np.flatnonzero((counts[which] > 1) & (prompts != 0))
    several = places[shared[np.lexsort((shared, first[which[shared]]))]]
    categories = Counter(np.array(rows.category)[kept].tolist())
    return {
        "near_duplicate_examples": [
            [rows.where(row), rows.where(of)] for row, of in sorted(kin.removed.items())[:EXAMPLES]
        ],
        "same_prompt": {
            "prompts": len(set(which[shared].tolist())),
            "rows": len(shared),
            "examples": [rows.where(row) for row in several[: 2 * EXAMPLES].tolist()],
        },
        "clusters": {
            "count": sum(n > 1 for n in kin.sizes),
            "rows": sum(n for n in kin.sizes if n > 1),
            "largest": max(kin.sizes, default=0),
        },
        "groups": len(rows.groups),
        "categories": {name: categories[place] for name, place in sorted(rows.categories.items())},
        "lengths": {
            "unit": "characters",
            "histogram": histogram(total),
            "row": quantiles(total),
            "asked": quantiles(lengths[:, 0]),
            "answered": quantiles(lengths[:, 1]),
        },
        "shortest": [rows.where(row) for row in order[:EXAMPLES].tolist()],
        "longest": [rows.where(row) for row in order[::-1][:EXAMPLES].tolist()],
    }
