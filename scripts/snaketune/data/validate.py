"""Every row of the sources ends in exactly one place: kept, rejected with a reason, duplicate, or near duplicate.

The rows are read once, in a stream. What is held in memory is what comparing them takes: some 400 bytes a row for keys
and MinHash signatures, no text.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from snaketune.data import report as reports
from snaketune.data import sources
from snaketune.data.deduplication import SIDES, Rows, copies, related
from snaketune.data.readers import dispatch
from snaketune.data.records import Judge
from snaketune.data.rejection import Rejection
from snaketune.data.row_keys import identify
from snaketune.data.shingles import Shingles
from snaketune.errors import DataError
from snaketune.files import StrPath, scratch, write_json, writing_jsonl

encode = msgspec.json.Encoder().encode
EXAMPLES = 5


def run(config: dict[str, Any], records: StrPath, rejected: StrPath, report: StrPath) -> dict[str, Any]:
    """Read every source; write records.jsonl, rejected.jsonl and report.json, whole or not at all.

    config: {"data": the data section, "seed"}. Returns the report. Raises DataError for a file that is no data file, a
    source without a usable row, and a share of rejected rows above data.max_rejected; what was rejected by then is
    left as rejected-at-stop.jsonl beside the records.
    """
    data = config["data"]
    at_stop = Path(records).with_name("rejected-at-stop.jsonl")
    at_stop.unlink(missing_ok=True)
    tallies: list[reports.Tally] = []
    duplicates: list[list[str]] = []
    with scratch(report) as folder, writing_jsonl(records) as good, writing_jsonl(rejected) as bad:
        rows = Rows(Shingles(folder / "shingles", data["shingles"]))
        with open(folder / "rows", "wb", buffering=1 << 20) as unique:
            for place, source in enumerate(data["sources"]):
                tally = reports.Tally(sources.title(source), source.get("fields"))
                tallies.append(tally)
                for line in _read(source, place, data, tally, rows, bad, duplicates):
                    unique.write(line)
                with _leaving(bad, at_stop):
                    tally.refuse_if_empty()
        with _leaving(bad, at_stop):
            reports.refuse_if_too_many(tallies, data["max_rejected"], at_stop)
        copied = copies(rows)
        rows.first.clear()
        rows.shingles.finish()
        kin = related(rows, data["near_duplicates"], copied)
        rows.shingles.close()
        for row in copied:
            tallies[rows.source[row]].duplicates += 1
        for row in kin.removed:
            tallies[rows.source[row]].near_duplicates += 1
        gone = copied.keys() | kin.removed.keys()
        with open(folder / "rows", "rb") as lines:
            for row, line in enumerate(lines):
                if row in gone:
                    continue
                if row in kin.cluster:
                    line = line[:-2] + b',"cluster":"' + kin.cluster[row].hex().encode() + b'"}\n'
                good.write(line)
    written = reports.counted(tallies) | {"duplicate_examples": duplicates} | reports.described(rows, kin, gone)
    written["advice"] = reports.advice(written)
    write_json(report, written)
    return written


@contextlib.contextmanager
def _leaving(bad: IO[bytes], at_stop: Path) -> Iterator[None]:
    """Leave what is rejected so far where it can be looked at, should the block stop the run."""
    try:
        yield
    except DataError:
        bad.flush()
        shutil.copyfile(bad.name, at_stop)
        raise


def _read(
    source: dict[str, Any],
    place: int,
    data: dict[str, Any],
    tally: reports.Tally,
    rows: Rows,
    bad: IO[bytes],
    duplicates: list[list[str]],
) -> Iterator[bytes]:
    """The rows of one source that are new, as lines of records.jsonl; the others are written down where they belong."""
    judge = Judge(source, data)
    side = source.get("split") or ""
    declared = {"split": side} if side else {}
    for path, container, name in sources.readable(source, f"data.sources[{place}]"):
        for row in dispatch.rows(path, container, source):
            tally.read += 1
            try:
                if type(row.value) is Rejection:
                    raise row.value
                record = judge.record(row.value, row.clean)
            except Rejection as reason:
                tally.reject(reason, f"{name}:{row.line}", row.value)
                raw = row.raw if isinstance(row.raw, str) else row.raw.decode(errors="backslashreplace")
                said = {"source": name, "line": row.line, "reason": reason.code, "detail": reason.detail, "row": raw}
                bad.write(encode(said) + b"\n")
                continue
            known = identify(record)
            # A row that a source puts on one side is not removed for standing on another too: that is a leak to show.
            first = rows.first.setdefault(known.key + side.encode(), len(rows))
            if first < len(rows):
                tally.duplicates += 1
                rows.tie(first, record)
                if len(duplicates) < EXAMPLES:
                    duplicates.append([f"{name}:{row.line}", rows.where(first)])
                continue
            rows.add(known, record, name, row.line, place, SIDES.index(side))
            identifier = known.key.hex() + (f"-{side}" if side else "")
            yield encode({"id": identifier, **record, "source": name, "line": row.line, **declared}) + b"\n"
