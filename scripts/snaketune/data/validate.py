"""Every row of the sources ends in exactly one place: kept, rejected with a reason, duplicate, or near duplicate."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from snaketune.data import containers, sources
from snaketune.data.clusters import Clusters, identities
from snaketune.data.identity import number, prompts, row_key
from snaketune.data.reasons import REASONS, Rejection
from snaketune.data.verdicts import Judge
from snaketune.errors import DataError
from snaketune.files import StrPath, write_json, writing_jsonl

encode = msgspec.json.Encoder().encode
SHOWN = 5  # reasons in a message, examples in the report


class Tally:
    """What became of the rows of one source."""

    def __init__(self) -> None:
        self.read = self.kept = self.duplicates = 0
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def reject(self, reason: Rejection, where: str) -> None:
        self.reasons[reason.code] += 1
        self.examples.setdefault(reason.code, f"{where}: {reason.detail}")


def run(config: dict[str, Any], records: StrPath, rejected: StrPath, report: StrPath) -> dict[str, Any]:
    """Read every source; write records.jsonl, rejected.jsonl and report.json, whole or not at all.

    config: {"data": the data section, "seed"}. Returns the report. Raises DataError for a file that is no data file, a
    source without a usable row, and a share of rejected rows above data.max_rejected.
    """
    data = config["data"]
    tallies: list[tuple[str, Tally]] = []
    keys: list[bytes] = []
    seen: dict[bytes, int] = {}
    asked_rows, asked_keys = array("q"), array("Q")
    labels: dict[str, int] = {}
    label_rows, label_keys = array("q"), array("Q")
    with writing_jsonl(rejected) as bad, writing_jsonl(records) as good:
        lines = []
        for place, source in enumerate(data["sources"]):
            tally = Tally()
            judge = Judge(source, data)
            names = sources.expanded(source, f"data.sources[{place}]")
            for path, row in _rows(names, source.get("format") or "auto"):
                tally.read += 1
                try:
                    if isinstance(row.value, Rejection):
                        raise row.value
                    record = judge.record(row.value)
                except Rejection as reason:
                    tally.reject(reason, f"{path}:{row.line}")
                    bad.write(encode(_rejected(path, row, reason)) + b"\n")
                    continue
                key = row_key(record)
                side = source.get("split")
                scoped = key + side.encode() if side else key
                if scoped in seen:
                    tally.duplicates += 1
                    continue
                this = seen[scoped] = len(keys)
                keys.append(key)
                tally.kept += 1
                for asked in prompts(record):
                    asked_rows.append(this)
                    asked_keys.append(number(asked))
                if "group" in record:
                    label_rows.append(this)
                    label_keys.append(labels.setdefault(record["group"], len(labels)))
                name = {"id": key.hex() + (f"-{side}" if side else "")}
                declared = {"split": side} if side else {}
                lines.append(encode(name | record | {"source": path, "line": row.line} | declared))
            tallies.append((_named(source), tally))
            _refuse_if_empty(_named(source), tally)
        _refuse_if_too_many(tallies, data["max_rejected"])
        clusters = Clusters(len(keys))
        for rows, found in ((asked_rows, asked_keys), (label_rows, label_keys)):
            clusters.join_equal(np.array(rows, np.int64), np.array(found, np.uint64))
        cluster_of = identities(clusters.members().values(), keys)
        for this, line in enumerate(lines):
            if this in cluster_of:
                line = line[:-1] + b',"cluster":"' + cluster_of[this].hex().encode() + b'"}'
            good.write(line + b"\n")
    found_report = _report(tallies)
    write_json(report, found_report)
    return found_report


def _rows(names: list[str], chosen: str) -> Iterator[tuple[str, containers.Row]]:
    for path in names:
        for row in containers.rows(path, sources.container_of(path, chosen)):
            yield path, row


def _rejected(path: str, row: containers.Row, reason: Rejection) -> dict[str, Any]:
    raw = row.raw if isinstance(row.raw, str) else row.raw.decode(errors="backslashreplace")
    return {"source": path, "line": row.line, "reason": reason.code, "detail": reason.detail, "row": raw}


def _named(source: dict[str, Any]) -> str:
    return source.get("hub") or source["path"]


def _commonest(reasons: Counter[str], examples: dict[str, str]) -> str:
    return "".join(
        f"\n  {count:>7} {code}: {REASONS[code]}. For example {examples[code]}"
        for code, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    )


def _refuse_if_empty(name: str, tally: Tally) -> None:
    if not tally.read:
        raise DataError("there are no rows in it", where=name, mend="Name the file that holds the data in data.sources")
    if not tally.kept and not tally.duplicates:
        said = _commonest(tally.reasons, tally.examples)
        raise DataError(
            f"none of its {tally.read} rows can be used, in any format known here:{said}\n",
            where=name,
            mend="If only the names of the fields differ, say so in this source's `fields`, for instance "
            "{prompt: frage, response: antwort}",
        )


def _refuse_if_too_many(tallies: list[tuple[str, Tally]], allowed: float) -> None:
    read = sum(tally.read for _, tally in tallies)
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for _, tally in tallies:
        reasons += tally.reasons
        examples = tally.examples | examples
    bad = reasons.total()
    if bad > allowed * read:
        raise DataError(
            f"{bad} of {read} rows ({bad / read:.1%}) cannot be used, and data.max_rejected allows {allowed:.1%}:"
            f"{_commonest(reasons, examples)}\n",
            where="data",
            mend="Mend the rows, or raise data.max_rejected if these may go",
        )


def _report(tallies: list[tuple[str, Tally]]) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    for _, tally in tallies:
        reasons += tally.reasons
    return {
        "read": sum(tally.read for _, tally in tallies),
        "kept": sum(tally.kept for _, tally in tallies),
        "rejected": reasons.total(),
        "duplicates": sum(tally.duplicates for _, tally in tallies),
        "near_duplicates": 0,
        "reasons": {code: reasons[code] for code in REASONS if reasons[code]},
    }
