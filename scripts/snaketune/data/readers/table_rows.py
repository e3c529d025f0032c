"""Tables as rows: CSV and TSV with a header, and Parquet."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from snaketune.data.readers.dispatch import LONGEST_LINE, Row, not_utf8, opened, overlong
from snaketune.data.rejection import Rejection
from snaketune.errors import DataError

BATCH = 1000  # rows of Parquet held at once
DELIMITERS = (",", ";", "\t", "|")


class _Lines:
    """Physical lines as text for csv.reader, remembering those of the row in hand."""

    def __init__(self, content: IO[bytes]) -> None:
        self.content = content
        self.number = 0
        self.row: list[str] = []
        self.size = 0
        self.again: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.again.pop() if self.again else self.content.readline(LONGEST_LINE).decode(errors="surrogateescape")
        if not line:
            raise StopIteration
        self.number += 1
        self.row.append(line)
        self.size += len(line)
        if self.size > LONGEST_LINE:
            raise csv.Error("the row does not end")
        return line

    def begin_row(self) -> int:
        """Forget the last row's lines; returns the number of the next line."""
        self.row.clear()
        self.size = 0
        return self.number + 1

    def give_back_all_but_first(self) -> str:
        """After a broken row: its first line is spent, the others are read again."""
        self.again.extend(reversed(self.row[1:]))
        self.number -= len(self.row) - 1
        return self.row[0]


def table_rows(content: IO[bytes], path: str, container: str) -> Iterator[Row]:
    """The rows of a CSV or TSV file under the names in its first row; DataError for a header that names one twice."""
    csv.field_size_limit(LONGEST_LINE)
    source = _Lines(content)
    delimiter, header = _header(source, path, container)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        number = source.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raw = source.give_back_all_but_first()
            reader = csv.reader(source, delimiter=delimiter, strict=True)
            bad = Rejection("unknown-format", f"not a row of a table: {_plain(error)}")
            yield Row(number, _bytes(raw), bad)
            continue
        if any(cell.strip() for cell in cells):
            yield _row(number, "".join(source.row), cells, header)


def _header(source: _Lines, path: str, container: str) -> tuple[str, list[str]]:
    """The delimiter (in a .csv the one that makes the most columns) and the column names."""
    first = ""
    while not first.strip():
        try:
            first = next(source)
        except StopIteration:
            return ",", []
    wrong = not_utf8(_bytes(first))
    if wrong:
        raise DataError(f"the header is {wrong.detail}", where=f"{path}:{source.number}", fix="Save the file as UTF-8")
    candidates = ("\t",) if container == "tsv" else DELIMITERS
    try:
        split = [next(csv.reader([first], delimiter=one)) for one in candidates]
    except csv.Error as error:
        raise DataError(f"the header cannot be read: {_plain(error)}", where=f"{path}:{source.number}") from None
    best = max(range(len(candidates)), key=lambda one: len(split[one]))
    names = [name.strip() for name in split[best]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"the header names the column {', '.join(map(repr, twice))} more than once",
            where=f"{path}:{source.number}",
            why="Which of them is meant cannot be told",
            fix="Give every column its own name",
        )
    return candidates[best], names


def _row(number: int, text: str, cells: list[str], header: list[str]) -> Row:
    raw = _bytes(text.rstrip("\r\n"))
    if len(raw) >= LONGEST_LINE:
        return overlong(number, raw)
    if wrong := not_utf8(raw):
        return Row(number, raw, wrong)
    if len(cells) > len(header):
        return Row(
            number,
            raw,
            Rejection("unknown-format", f"{len(cells)} cells under {len(header)} column names; a comma too many?"),
        )
    return Row(number, raw, dict(zip(header, cells, strict=False)))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _plain(error: csv.Error) -> str:
    return str(error).replace("unexpected end of data", "a quotation mark is opened and never closed")


def parquet_rows(path: str) -> Iterator[Row]:
    """The rows of a Parquet file, numbered from 1; a null cell counts as a field that is not there."""
    import pyarrow
    import pyarrow.parquet

    try:
        with contextlib.ExitStack() as stack:
            file: Any = path
            if not path.lower().endswith(".parquet"):  # compressed as a whole, and Parquet must be read from its end
                file = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(stack.enter_context(opened(path)), file)
            table = stack.enter_context(pyarrow.parquet.ParquetFile(file))
            number = 0
            for batch in table.iter_batches(batch_size=BATCH):
                for cells in batch.to_pylist():
                    number += 1
                    value = {name: _without_nulls(cell) for name, cell in cells.items() if cell is not None}
                    yield Row(number, json.dumps(value, ensure_ascii=False, default=str), value)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the Parquet file cannot be read ({reason})", where=path, fix="Make it again") from None


def _without_nulls(cell: Any) -> Any:
    """Parquet fills in every field that any row of a column has; those null ones were never written."""
    if isinstance(cell, dict):
        return {key: _without_nulls(value) for key, value in cell.items() if value is not None or key == "content"}
    if isinstance(cell, list):
        return [_without_nulls(one) for one in cell]
    return cell
