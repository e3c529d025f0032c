"""Reads the rows of every source; each ends in exactly one place: kept, rejected, duplicate or near duplicate.

The rows are read once, in a stream. Memory holds what comparing them takes, some 400 bytes a row for keys and MinHash
signatures, and no text.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from snaketune.config.sections import SourceConfig
from snaketune.contracts.data import DataReport, Rejected
from snaketune.data import report as data_report
from snaketune.data import sources
from snaketune.data.deduplication import (
    SPLIT_CODES,
    RowIndex,
    RowKeys,
    cluster_and_deduplicate,
    free_copies_of_pinned_rows,
    row_keys,
)
from snaketune.data.minhash import Shingles
from snaketune.data.readers import dispatch
from snaketune.data.readers.raw_row import RawRow, Rejection
from snaketune.data.records import RecordBuilder, ValidationConfig, with_cluster
from snaketune.data.report import SourceCounts
from snaketune.errors import DataError
from snaketune.files import StrPath, scratch, write_json, writing_jsonl
from snaketune.runtime.events import Progress, report_progress

encode = msgspec.json.Encoder().encode
ROWS_A_REPORT = 200  # between two reports of progress
MAX_DUPLICATE_EXAMPLES = 5


@dataclass
class Replacements:
    """The questions of the sources that replace others', and of their plain texts the texts."""

    prompts: set[int] = field(default_factory=set)
    texts: set[bytes] = field(default_factory=set)

    @classmethod
    def of(cls, config: ValidationConfig) -> Replacements:
        """Read the sources that replace others; rows that cannot be used replace nothing."""
        found = cls()
        for number, source in enumerate(config.sources):
            if not source.replaces:
                continue
            builder = RecordBuilder(source, config)
            for file in sources.data_files(source, f"data.sources[{number}]"):
                for row in dispatch.rows(file.path, file.file_format, source):
                    if type(row.parsed) is Rejection:
                        continue
                    try:
                        found._add(row_keys(builder.record(row.parsed, row.has_no_control_chars)))
                    except Rejection:
                        continue
        return found

    def _add(self, keys: RowKeys) -> None:
        if keys.prompt_hash:
            self.prompts.add(keys.prompt_hash)
        else:
            self.texts.add(keys.key)

    def cover(self, keys: RowKeys) -> bool:
        """Whether a row of another source gives way."""
        return keys.prompt_hash in self.prompts if keys.prompt_hash else keys.key in self.texts


@dataclass
class _Intake:
    """What reading the sources fills: the index of the rows, the counts of each source, and the rejected rows."""

    rows: RowIndex
    rejected_file: IO[bytes]
    rejected_at_stop: Path
    seed: int
    replacements: Replacements
    counts: list[SourceCounts] = field(default_factory=list)
    duplicate_examples: list[list[str]] = field(default_factory=list)

    @contextlib.contextmanager
    def saving_rejected_on_error(self) -> Iterator[None]:
        """Leave the rows rejected so far where they can be looked at, should the block stop the run."""
        try:
            yield
        except DataError:
            self.rejected_file.flush()
            shutil.copyfile(self.rejected_file.name, self.rejected_at_stop)
            raise

    def reject(self, reason: Rejection, row: RawRow, file_name: str) -> None:
        self.counts[-1].reject(reason, f"{file_name}:{row.line}", row.parsed)
        raw = row.raw if isinstance(row.raw, str) else row.raw.decode(errors="backslashreplace")
        line = Rejected(source=file_name, line=row.line, reason=reason.code, detail=reason.detail, row=raw)
        self.rejected_file.write(encode(line) + b"\n")


def run(config: ValidationConfig, records: StrPath, rejected: StrPath, report: StrPath, seed: int = 1) -> DataReport:
    """Read every source; write records.jsonl, rejected.jsonl and report.json, whole or not at all.

    seed: draws the sample of a source that has a limit. Returns the report.
    Raises DataError for a file that is no data file, a source without a usable row, and a share of
    rejected rows above data.max_rejected; the rows rejected by then are left in rejected-at-stop.jsonl.
    """
    rejected_at_stop = Path(records).with_name("rejected-at-stop.jsonl")
    rejected_at_stop.unlink(missing_ok=True)
    with scratch(report) as folder, writing_jsonl(records) as records_file, writing_jsonl(rejected) as rejected_file:
        rows = RowIndex(Shingles(folder / "shingles", config.shingles))
        intake = _Intake(rows, rejected_file, rejected_at_stop, seed, Replacements.of(config))
        with open(folder / "rows", "wb", buffering=1 << 20) as unique:
            for number, source in enumerate(config.sources):
                intake.counts.append(SourceCounts(sources.display_name(source), source.fields))
                unique.writelines(_new_records(source, number, config, intake))
                with intake.saving_rejected_on_error():
                    intake.counts[-1].raise_if_unusable()
        with intake.saving_rejected_on_error():
            data_report.raise_if_too_many_rejected(intake.counts, config.max_rejected, rejected_at_stop)
        copies = free_copies_of_pinned_rows(rows)
        rows.first.clear()
        rows.shingles.seal()
        dedup = cluster_and_deduplicate(rows, config.near_duplicates, copies)
        rows.shingles.close()
        for row in copies:
            intake.counts[rows.source[row]].duplicates += 1
        for row in dedup.removed:
            intake.counts[rows.source[row]].near_duplicates += 1
        dropped = copies.keys() | dedup.removed.keys()
        with open(folder / "rows", "rb") as lines:
            for row, line in enumerate(lines):
                if row in dropped:
                    continue
                if row in dedup.cluster:
                    line = with_cluster(line, dedup.cluster[row].hex())
                records_file.write(line)
    written = data_report.build(intake.counts, intake.duplicate_examples, rows, dedup, dropped)
    write_json(report, written)
    return written


def _new_records(source: SourceConfig, number: int, config: ValidationConfig, intake: _Intake) -> Iterator[bytes]:
    """Yield the rows of one source that are no exact duplicates, as lines of records.jsonl; note all others."""
    builder = RecordBuilder(source, config)
    rows, counts = intake.rows, intake.counts[-1]
    split = source.split or ""
    declared = {"split": split} if split else {}
    files = list(sources.data_files(source, f"data.sources[{number}]"))
    chosen = None
    if source.limit is not None:
        counts.available = sum(1 for file in files for _ in dispatch.rows(file.path, file.file_format, source))
        chosen = sources.sample_rows(counts.available, source.limit, intake.seed, number)
    position = -1
    for path, file_format, name in files:
        for row in dispatch.rows(path, file_format, source):
            position += 1
            if chosen is not None and position not in chosen:
                continue
            counts.read += 1
            if not counts.read % ROWS_A_REPORT:
                report_progress(Progress(activity=f"reading {name}", done=counts.read))
            try:
                if type(row.parsed) is Rejection:
                    raise row.parsed
                record = builder.record(row.parsed, row.has_no_control_chars)
            except Rejection as reason:
                intake.reject(reason, row, name)
                continue
            keys = row_keys(record)
            if not source.replaces and intake.replacements.cover(keys):
                counts.duplicates += 1
                continue
            # A row whose source declares its split is not removed for being in another split too: that is a leak.
            first = rows.first.setdefault(keys.key + split.encode(), len(rows))
            if first < len(rows):
                counts.duplicates += 1
                rows.add_to_group(first, record)
                if len(intake.duplicate_examples) < MAX_DUPLICATE_EXAMPLES:
                    intake.duplicate_examples.append([f"{name}:{row.line}", rows.where(first)])
                continue
            rows.add(keys, record, name, row.line, number, SPLIT_CODES.index(split))
            identifier = keys.key.hex() + (f"-{split}" if split else "")
            yield encode({"id": identifier, **record, "source": name, "line": row.line, **declared}) + b"\n"
