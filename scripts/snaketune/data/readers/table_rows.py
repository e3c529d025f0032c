"""Tables as rows: CSV and TSV with a header, Excel workbooks, Parquet and Arrow. All are read with pandas, in chunks.

Every cell of a CSV, TSV or Excel table is text: `NA` and `null` stay words, `007` keeps its zeros. What pandas does not
tell of a text file is where a row begins and which row is broken, so `_Records` finds the rows first, line by line.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import json
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

from snaketune.data.readers.raw_row import LONGEST_LINE, RawRow, Rejection, not_utf8, open_decompressed, too_long_row
from snaketune.errors import DataError

CHUNK = 1000  # rows given to pandas at once
DELIMITERS = (",", ";", "\t", "|")
# How pandas leaves every cell as it is.
TEXT: dict[str, Any] = {"dtype": object, "keep_default_na": False, "na_filter": False}


class _Records:
    """The records of a CSV file as text, each with the number of its first line; a cell in quotes may hold lines."""

    def __init__(self, content: IO[bytes], delimiter: str, number: int) -> None:
        self.content = content
        self.delimiter = delimiter
        self.number = number  # of the last line that was read
        self.pushed_back: list[str] = []
        # A line outside of quotes is fields up to its end, or up to a quotation mark that it leaves open; a line inside
        # of quotes goes on until they are closed. Possessive, so that no line takes more than one pass.
        one = re.escape(delimiter)
        field = rf'(?:"(?:[^"]|"")*+"|[^"{one}\r\n][^{one}\r\n]*+|)'
        opening = r'"(?:[^"]|"")*+'
        rest = rf"(?:{one}{field}(?=[{one}\r\n]|\Z))*+(?:[\r\n]*+\Z|(?P<open>{one}{opening}\Z))"
        self._outside = re.compile(rf"(?:{field}(?=[{one}\r\n]|\Z){rest}|(?P<first>{opening}\Z))")
        self._inside = re.compile(rf'(?:[^"]|"")*+(?:\Z|"{rest})')
        self._stays_inside = re.compile(r'(?:[^"]|"")*+\Z')

    def __iter__(self) -> Iterator[tuple[int, str, str]]:
        """(line, text, what is wrong with it or nothing); of a malformed record only the first line is taken."""
        while line := self._readline():
            number, lines = self.number, [line]
            size, match = len(line), self._outside.match(line)
            is_open = bool(match and (match["first"] or match["open"]))
            while match and is_open:
                if size > LONGEST_LINE or not (line := self._readline()):
                    match = None
                    break
                lines.append(line)
                size += len(line)
                match = self._inside.match(line)
                is_open = bool(match and (match["open"] or self._stays_inside.match(line)))
            if match:
                yield number, "".join(lines), ""
            else:
                self.pushed_back.extend(reversed(lines[1:]))
                self.number = number
                yield number, lines[0], _malformed(lines, self.delimiter)

    def _readline(self) -> str:
        line = self.pushed_back.pop() if self.pushed_back else _decoded(self.content.readline(LONGEST_LINE))
        self.number += bool(line)
        return line


def table_rows(content: IO[bytes], path: str, file_format: str) -> Iterator[RawRow]:
    """The rows of a CSV or TSV file under the names in its first row; DataError for a header that names one twice."""
    csv.field_size_limit(LONGEST_LINE)
    delimiter, names, number = _header(content, path, file_format)
    chunk: list[tuple[int, str]] = []
    for line, text, malformed in _Records(content, delimiter, number):
        if not malformed:
            chunk.append((line, text))
        if malformed or len(chunk) == CHUNK:
            yield from _chunk_rows(chunk, names, delimiter)
            chunk = []
        if malformed:
            yield RawRow(line, _encoded(text), Rejection("unknown-format", f"not a row of a table: {malformed}"))
    yield from _chunk_rows(chunk, names, delimiter)


def _header(content: IO[bytes], path: str, file_format: str) -> tuple[str, list[str], int]:
    """The delimiter (in a .csv the one that makes the most columns), the column names, and the header's line."""
    first, number = b"", 0
    while not first.strip():
        first = content.readline(LONGEST_LINE)
        number += 1
        if not first:
            return ",", [], number
    wrong = not_utf8(first)
    if wrong:
        raise DataError(f"the header is {wrong.detail}", where=f"{path}:{number}", fix="Save the file as UTF-8")
    candidates = ("\t",) if file_format == "tsv" else DELIMITERS
    try:
        split = [next(csv.reader([first.decode()], delimiter=one)) for one in candidates]
    except csv.Error as error:
        raise DataError(f"the header cannot be read: {_plain(error)}", where=f"{path}:{number}") from None
    best = max(range(len(candidates)), key=lambda one: len(split[one]))
    return candidates[best], _column_names(split[best], f"{path}:{number}"), number


def _column_names(cells: list[str], where: str) -> list[str]:
    """The names in a header; a column that has none is called by its number, and two may not have the same."""
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"the header names the column {', '.join(map(repr, twice))} more than once",
            where=where,
            why="Which of them is meant cannot be told",
            fix="Give every column its own name",
        )
    return names


def _chunk_rows(chunk: list[tuple[int, str]], names: list[str], delimiter: str) -> Iterator[RawRow]:
    """The rows of some well-formed records; a cell that is not there is a field that is not there."""
    import pandas

    if not chunk:
        return
    with warnings.catch_warnings(action="ignore", category=pandas.errors.ParserWarning):  # of cells too many, told here
        frame = pandas.read_csv(
            io.StringIO("".join(text if text.endswith("\n") else f"{text}\n" for _, text in chunk), newline="\n"),
            sep=delimiter,
            header=None,
            names=[*range(len(names) + 1)],
            index_col=False,
            skip_blank_lines=False,
            engine="python",
            on_bad_lines=lambda cells: cells[: len(names) + 1],
            **TEXT,
        )
    for (number, text), (*cells, further) in zip(chunk, frame.to_numpy().tolist(), strict=True):
        present = [cell for cell in cells if cell is not None]
        if further is not None:
            present = next(csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter))
        if not any(cell.strip() for cell in present):
            continue
        raw = _encoded(text.rstrip("\r\n"))
        if len(raw) >= LONGEST_LINE:
            yield too_long_row(number, raw)
        elif wrong := not_utf8(raw):
            yield RawRow(number, raw, wrong)
        elif further is not None:
            detail = f"{len(present)} cells under {len(names)} column names; a comma too many?"
            yield RawRow(number, raw, Rejection("unknown-format", detail))
        else:
            yield RawRow(number, raw, dict(zip(names, present, strict=False)))


def _decoded(line: bytes) -> str:
    return line.decode(errors="surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _malformed(lines: list[str], delimiter: str) -> str:
    """What is wrong with a record, in the words of Python's own parser."""
    try:
        next(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        return _plain(error)
    return "the row does not end"


def _plain(error: csv.Error) -> str:
    return str(error).replace("unexpected end of data", "a quotation mark is opened and never closed")


def workbook_rows(path: str, sheet: str | None) -> Iterator[RawRow]:
    """The rows of one sheet of an Excel workbook, by Excel's own row numbers; numbers and dates become text.

    sheet: its name; None for the only one that holds anything. The header is the first row of two cells or more.
    """
    import pandas

    try:
        with _seekable(path, ".xlsx") as file, pandas.ExcelFile(file, engine="openpyxl") as book:
            frame = _sheet(book, sheet, path)
    except ImportError:
        raise DataError(
            "this is an Excel workbook, and openpyxl, which reads them, is not installed",
            where=path,
            fix="Run `make setup` again; or in Excel: Save as, CSV UTF-8, and name that file here",
        ) from None
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(
            f"the Excel workbook cannot be read ({str(error).splitlines()[0]})",
            where=path,
            fix="Save it again as .xlsx (without a password), or as CSV UTF-8",
        ) from None
    names: list[str] = []
    for number, values in enumerate(frame.to_numpy().tolist(), 1):
        cells = [_cell_text(value) for value in values]
        filled = sum(bool(cell.strip()) for cell in cells)
        if not names and filled >= min(2, len(cells)):
            names = _column_names(cells, f"{path}:{number}")
        elif names and filled:
            row = {name: cell for name, cell in zip(names, cells, strict=True) if cell or not _is_unnamed(name)}
            yield RawRow(number, json.dumps(row, ensure_ascii=False), row)


def _sheet(book: Any, sheet: str | None, path: str) -> Any:
    """The cells of a sheet, as a data frame without a header."""
    frames = {name: book.parse(name, header=None, **TEXT) for name in book.sheet_names if sheet in (None, name)}
    full = [name for name, frame in frames.items() if len(frame)] or list(frames)
    if len(full) != 1:
        known = ", ".join(map(str, full or book.sheet_names))
        raise DataError(
            f'there is no sheet "{sheet}" in this workbook'
            if sheet
            else f"this workbook has {len(full)} sheets with rows",
            where=path,
            fix=f"Name one in this source's `sheet`: {known}",
        )
    return frames[full[0]]


def _cell_text(value: Any) -> str:
    """What a person sees in a cell of Excel, as text; nothing for an error such as #N/A."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return "" if value != value else f"{value:.15g}"
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return value if isinstance(value, str) else str(value)


def _is_unnamed(name: str) -> bool:
    return name.startswith("column ")


def parquet_rows(path: str) -> Iterator[RawRow]:
    """The rows of a Parquet file, numbered from 1; a null cell counts as a field that is not there."""
    import pyarrow
    import pyarrow.parquet

    try:
        with _seekable(path, ".parquet") as file, pyarrow.parquet.ParquetFile(file) as table:
            yield from _batch_rows(table.iter_batches(batch_size=CHUNK))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the Parquet file cannot be read ({reason})", where=path, fix="Make it again") from None


def arrow_rows(path: str) -> Iterator[RawRow]:
    """The rows of an Arrow file, as a stream (which `save_to_disk` of datasets writes) or as a file (Feather)."""
    import pyarrow
    import pyarrow.ipc

    try:
        with _seekable(path, ".arrow") as file, pyarrow.OSFile(file) if isinstance(file, str) else file as content:
            is_file = content.read(6) == b"ARROW1"
            content.seek(0)
            if is_file:
                reader = pyarrow.ipc.open_file(content)
                batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                batches = iter(pyarrow.ipc.open_stream(content))
            yield from _batch_rows(batches)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the Arrow file cannot be read ({reason})", where=path, fix="Make it again") from None


def _batch_rows(batches: Iterable[Any]) -> Iterator[RawRow]:
    import pandas

    number = 0
    for batch in batches:
        # Arrow's own types: pandas' would make floats of integers beside nulls, and arrays of lists of turns.
        frame = batch.to_pandas(types_mapper=pandas.ArrowDtype)
        for cells in frame.to_dict("records"):
            number += 1
            value = {name: _without_nulls(cell) for name, cell in cells.items() if cell is not pandas.NA}
            yield RawRow(number, json.dumps(value, ensure_ascii=False, default=str), value)


@contextlib.contextmanager
def _seekable(path: str, ending: str) -> Iterator[Any]:
    """The file itself, or a decompressed copy of one that is compressed as a whole: reading begins at the end."""
    if path.lower().endswith(ending):
        yield path
        return
    with tempfile.TemporaryFile() as file, open_decompressed(path) as content:
        shutil.copyfileobj(content, file)
        file.seek(0)
        yield file


def _without_nulls(cell: Any) -> Any:
    """Parquet fills in every field that any row of a column has; those null ones were never written."""
    if isinstance(cell, dict):
        return {key: _without_nulls(value) for key, value in cell.items() if value is not None or key == "content"}
    if isinstance(cell, list):
        return [_without_nulls(one) for one in cell]
    return cell
