"""Checks the rows of a configuration for the page, in a process of its own: `python -m snaketune.ui.data_check FOLDER`.

The very steps of the data stage read, split and compare the rows; what is added is an index, so that the verdict of any
row can be shown without reading those before it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from snaketune.config.sections import DataConfig
from snaketune.contracts.data import SPLITS, DataRecord, Rejected
from snaketune.data import sources, splits, validate
from snaketune.data.readers import dispatch
from snaketune.data.records import ValidationConfig
from snaketune.data.splits import LeakageConfig
from snaketune.errors import DataError, UserError
from snaketune.files import read_json, read_jsonl, write_json, writing_jsonl
from snaketune.ui.replies import Fault, fault_of

LONGEST = 1000  # characters of a row that are shown
VERDICTS = ("kept", "rejected", "duplicate")


class CheckJob(msgspec.Struct, frozen=True, kw_only=True):
    """What is checked: the section `data` of a configuration, and its seed."""

    data: DataConfig
    seed: int


class RowVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a data file, and what becomes of it. split: of a kept row; reason, detail: of a rejected one."""

    source: str
    line: int
    verdict: str
    split: str
    reason: str
    detail: str
    text: str


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """result.json of a check: rows by verdict, and the mistake that would stop a run."""

    rows: dict[str, int]
    fault: Fault | None


class _Row(NamedTuple):
    source: str
    line: int


def run(folder: Path) -> CheckResult:
    """Check the job in a folder, and write everything about it there."""
    job = msgspec.json.decode((folder / "job.json").read_bytes(), type=CheckJob)
    fault = None
    try:
        _validate(job, folder)
        _split(job, folder)
    except UserError as error:
        fault = fault_of(error)
    rows = _index(job, folder)
    fault = fault or _too_many_rejected(rows, job.data.max_rejected)
    result = CheckResult(rows=rows, fault=fault)
    write_json(folder / "result.json", result)
    return result


def _validate(job: CheckJob, folder: Path) -> None:
    """Validate without a limit of rejected rows: all of them are to be seen."""
    fields = {name: getattr(job.data, name) for name in ValidationConfig.__struct_fields__}
    config = ValidationConfig(**fields | {"max_rejected": 1.0})
    validate.run(config, folder / "records.jsonl", folder / "rejected.jsonl", folder / "report.json", job.seed)


def _split(job: CheckJob, folder: Path) -> None:
    settings = splits.SplitRowsConfig(split=job.data.split, seed=job.seed)
    outputs = {name: folder / f"{name}.jsonl" for name in SPLITS}
    splits.run(settings, folder / "records.jsonl", outputs, folder / "split.json")
    config = LeakageConfig(**{name: getattr(job.data, name) for name in LeakageConfig.__struct_fields__})
    splits.check_leaks(config, outputs["train"], outputs["valid"], outputs["test"], folder / "leaks.json")
    splits.check(folder / "leaks.json")


def _too_many_rejected(rows: dict[str, int], limit: float) -> Fault | None:
    total = sum(rows.values())
    if not total or rows["rejected"] <= limit * total:
        return None
    share = rows["rejected"] / total
    return Fault(
        what=f"{rows['rejected']:,} of {total:,} rows ({share:.1%}) are rejected",
        where="data.max_rejected",
        why=f"The limit is {limit:.1%}; what is left may be unlike your data",
        fix="Correct the rows that are listed as rejected, or raise data.max_rejected",
    )


def _index(job: CheckJob, folder: Path) -> dict[str, int]:
    """Write rows.jsonl, every row with its verdict, and for each verdict the places in it; returns the counts."""
    kept = {_Row(record["source"], record["line"]): split for split, record in _kept(folder)}
    stopped = folder / "rejected-at-stop.jsonl"
    rejected = {
        _Row(one.source, one.line): one
        for path in (folder / "rejected.jsonl", stopped)
        if path.is_file()
        for one in read_jsonl(path, Rejected)
    }
    places: dict[str, list[int]] = {verdict: [] for verdict in VERDICTS}
    end = 0
    with writing_jsonl(folder / "rows.jsonl") as out:
        for row, text in _rows(job):
            found = _verdict(row, text, kept, rejected)
            places[found.verdict].append(end)
            line = msgspec.json.encode(found) + b"\n"
            out.write(line)
            end += len(line)
    for verdict, starts in places.items():
        np.save(folder / f"{verdict}.npy", np.array(starts, np.int64))
    np.save(folder / "all.npy", np.sort(np.concatenate([np.array(one, np.int64) for one in places.values()])))
    return {verdict: len(starts) for verdict, starts in places.items()}


def _kept(folder: Path) -> Iterator[tuple[str, DataRecord]]:
    split_files = [(name, folder / f"{name}.jsonl") for name in SPLITS]
    files = split_files if all(path.is_file() for _, path in split_files) else [("", folder / "records.jsonl")]
    for name, path in files:
        if path.is_file():
            yield from ((name, record) for record in read_jsonl(path))


def _rows(job: CheckJob) -> Iterator[tuple[_Row, str]]:
    """Every row of every source, as far as the files can be read."""
    for number, source in enumerate(job.data.sources):
        try:
            for file in sources.data_files(source, f"data.sources[{number}]"):
                for row in dispatch.rows(file.path, file.file_format, source):
                    raw = row.raw if isinstance(row.raw, str) else row.raw.decode(errors="backslashreplace")
                    yield _Row(file.name, row.line), raw
        except DataError:
            continue  # it is the fault that is shown


def _verdict(row: _Row, text: str, kept: dict[_Row, str], rejected: dict[_Row, Rejected]) -> RowVerdict:
    reason = rejected.get(row)
    verdict = "rejected" if reason else "kept" if row in kept else "duplicate"
    return RowVerdict(
        source=row.source,
        line=row.line,
        verdict=verdict,
        split=kept.get(row, ""),
        reason=reason.reason if reason else "",
        detail=reason.detail if reason else "",
        text=text if len(text) <= LONGEST else text[:LONGEST] + "…",
    )


def read_rows(folder: Path, verdict: str, offset: int, limit: int) -> tuple[int, list[RowVerdict]]:
    """How many rows have a verdict (`all`: any), and some of them."""
    starts = np.load(folder / f"{verdict if verdict in VERDICTS else 'all'}.npy", mmap_mode="r")
    wanted = starts[offset : offset + limit].tolist()
    with open(folder / "rows.jsonl", "rb") as lines:
        found = []
        for start in wanted:
            lines.seek(start)
            found.append(msgspec.json.decode(lines.readline(), type=RowVerdict))
    return len(starts), found


def read_result(folder: Path) -> CheckResult | None:
    """The result of a check that is done."""
    path = folder / "result.json"
    return msgspec.convert(read_json(path), CheckResult) if path.is_file() else None


if __name__ == "__main__":
    run(Path(sys.argv[1]))
