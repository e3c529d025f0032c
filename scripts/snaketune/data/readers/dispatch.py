"""The rows of a file, one at a time, whatever the file is: JSON Lines, a JSON array, a table, or text by lines.

Every reader yields `RawRow`s and holds one row and one buffer at most (tables: a chunk of rows). What is wrong with a
row is a Rejection in its place; what is wrong with a file as a whole is a DataError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, NoReturn

import msgspec

from snaketune.config.sections import SourceConfig
from snaketune.data.readers.nested_json import find_array, squad_rows
from snaketune.data.readers.raw_row import (
    LONGEST_LINE,
    RawRow,
    Rejection,
    json_type_name,
    not_utf8,
    open_text,
    too_long_row,
)
from snaketune.data.readers.table_rows import arrow_rows, parquet_rows, table_rows, workbook_rows
from snaketune.data.sources import at_home
from snaketune.errors import DataError

BLOCK = 1 << 20  # bytes of an array in hand at once
WHITESPACE = b" \t\r\n"
JSON_TOKEN = re.compile(rb'\\.|["\[\]{},]', re.DOTALL)  # an escape, or a sign that may begin or end something
MATCHING_BRACKET = {b"]": b"[", b"}": b"{"}
decode = msgspec.json.Decoder().decode


def rows(path: str, file_format: str, source: SourceConfig | None = None) -> Iterator[RawRow]:
    """The rows of one file. source: its settings, for a sheet, a target file or a template that it may name."""
    if file_format == "parquet":
        yield from parquet_rows(path)
        return
    if file_format == "arrow":
        yield from arrow_rows(path)
        return
    if file_format == "xlsx":
        yield from workbook_rows(path, source.sheet if source else None)
        return
    with open_text(path, file_format) as (content, head):
        if file_format in ("csv", "tsv"):
            yield from table_rows(content, path, file_format)
        elif file_format == "pairs":
            yield from pair_rows(content)
        elif file_format == "parallel" and source and source.target_path:
            with open_text(at_home(source.target_path)) as (target, _):
                template = source.template or "{source}"
                yield from parallel_rows((content, path), (target, source.target_path), template)
        elif file_format == "squad":
            yield from squad_rows(content, path)
        elif is_array(head, file_format):
            yield from array_rows(content)
        elif file_format in ("json", "jsonl"):
            yield from _object_rows(content, head, path, file_format, source.rows_key if source else None)
        else:
            raise DataError(
                f"no reader knows the format {file_format}",
                where=path,
                why="Read as another one, its rows would be wrong",
                fix="Name one of the formats that docs/configuration.md lists under data.sources.format",
            )


def _object_rows(
    content: IO[bytes], head: bytes, path: str, file_format: str, rows_key: str | None
) -> Iterator[RawRow]:
    """The rows of an array under a key of the file's one object, or else an object a line."""
    is_nested = False
    if file_format == "json" and head.lstrip().startswith(b"{"):
        content, is_nested = find_array(content, path, rows_key)
    if is_nested:
        yield from array_rows(content, ends_with_array=True)
    else:
        yield from json_rows(content)


def is_array(head: bytes, file_format: str) -> bool:
    """Whether a JSON file is one array of rows: `.json` that begins with `[`, `.jsonl` that begins with `[` and `{`."""
    start = head.lstrip()
    if not start.startswith(b"["):
        return False
    return file_format == "json" or start[1:].lstrip().startswith(b"{")


def lines(content: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without white space around them, blank ones left out; of one that is too long, its beginning."""
    number = 0
    while line := content.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while (rest := content.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            yield number, line
            continue
        line = line.strip(WHITESPACE)
        if line:
            yield number, line


def json_rows(content: IO[bytes]) -> Iterator[RawRow]:
    """JSON Lines: a value a line."""
    for number, line in lines(content):
        yield json_row(number, line)


def json_row(number: int, line: bytes) -> RawRow:
    if len(line) >= LONGEST_LINE:
        return too_long_row(number, line)
    try:
        value = decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return RawRow(number, line, diagnose_json_error(line))
    if type(value) is not dict:
        return RawRow(number, line, Rejection("not-an-object", f"the line is {json_type_name(value)}, not an object"))
    # In JSON a control character must be an escape; only DEL and C1 (in UTF-8 after 0xC2) may stand as they are.
    suspect = b"\\u00" in line or b"\\b" in line or b"\\f" in line or b"\x7f" in line or b"\xc2" in line
    return RawRow(number, line, value, not suspect)


def diagnose_json_error(line: bytes) -> Rejection:
    """Why a line cannot be decoded, in the words of Python's own parser, which is slower and clearer."""
    if wrong := not_utf8(line):
        return wrong
    text = line.decode()
    try:
        value = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        return Rejection("invalid-json", f"{error.msg} at character {error.pos + 1}")
    except RecursionError:
        return Rejection("invalid-json", "brackets nested thousands deep")
    except ValueError as error:
        return Rejection("invalid-json", str(error))
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return Rejection("bad-encoding", "half of a surrogate pair, as when an emoji is cut in two")
    return Rejection("invalid-json", "a number too large for any reader")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value")


def array_rows(content: IO[bytes], *, ends_with_array: bool = False) -> Iterator[RawRow]:
    """The elements of one JSON array, without holding the array. ends_with_array: what follows the array is no row.

    Elements are cut at the commas outside of strings and brackets, so that a broken one does not take the rest along.
    """
    line = 1
    for text, newlines in _elements(content, ends_with_array):
        element = text.lstrip(WHITESPACE)
        if element:
            yield json_row(line + text[: len(text) - len(element)].count(b"\n"), element.rstrip(WHITESPACE))
        line += newlines


def _elements(content: IO[bytes], ends_with_array: bool) -> Iterator[tuple[bytes, int]]:
    """The text between the commas of an array's first level, and how many line ends were in it.

    Of an element that is too long, only the beginning is given.
    """
    stack: list[bytes] = []  # the brackets that are open, the array's own first
    quoted, held, newlines = False, b"", 0
    while block := content.read(BLOCK):
        while block.endswith(b"\\") and (more := content.read(1)):  # an escape must not be cut in two
            block += more
        start = 0
        for found in JSON_TOKEN.finditer(block):
            sign = found[0]
            if quoted:
                quoted = sign != b'"'
                continue
            if sign == b'"':
                quoted = True
                continue
            boundary = (len(stack) == 1 and sign in b",]") or (not stack and sign == b"[")
            if sign in b"[{":
                stack.append(sign)
            elif sign in MATCHING_BRACKET and MATCHING_BRACKET[sign] in stack[1 - boundary :]:
                while stack.pop() != MATCHING_BRACKET[sign]:
                    pass
            if boundary:
                text = block[start : found.start()]
                yield (held + text)[:LONGEST_LINE], newlines + text.count(b"\n")
                start, held, newlines = found.end(), b"", 0
                if ends_with_array and not stack:
                    return
        newlines += block.count(b"\n", start)
        if len(held) < LONGEST_LINE:
            held += block[start:]
    yield held[:LONGEST_LINE], newlines


def pair_rows(content: IO[bytes]) -> Iterator[RawRow]:
    """Prompt and answer on alternating lines; blank lines may stand between pairs, not inside one."""
    prompt: tuple[int, bytes] | None = None
    number = 0
    while line := content.readline(LONGEST_LINE):
        number += 1
        line = line.strip(WHITESPACE)
        if prompt is None:
            prompt = (number, line) if line else None
            continue
        yield _pair(prompt[0], prompt[1], line, b"\n")
        prompt = None
    if prompt:
        yield RawRow(*prompt, Rejection("missing-field", "the file ends after this prompt; its answer line is missing"))


def parallel_rows(prompts: tuple[IO[bytes], str], responses: tuple[IO[bytes], str], template: str) -> Iterator[RawRow]:
    """Two files with their names, line by line: the prompt is `template` around a line of the first.

    Raises DataError when one file is longer, since it cannot be told where they fell out of step.
    """
    number = 0
    while True:
        left, right = prompts[0].readline(LONGEST_LINE), responses[0].readline(LONGEST_LINE)
        if bool(left) != bool(right):
            longer, shorter = (prompts[1], responses[1]) if left else (responses[1], prompts[1])
            raise DataError(
                f"{longer} has more lines than {shorter}, which has {number}",
                where=prompts[1],
                why="The two files must be aligned line by line; where they cease to be cannot be told",
                fix="Align them again",
            )
        if not left:
            return
        number += 1
        left, right = left.strip(WHITESPACE), right.strip(WHITESPACE)
        if left or right:
            row = _pair(number, left, right, b"\t")
            if type(row.parsed) is dict and left:
                row.parsed["prompt"] = template.replace("{source}", row.parsed["prompt"])
            yield row


def _pair(number: int, left: bytes, right: bytes, between: bytes) -> RawRow:
    raw = left + between + right
    if len(left) >= LONGEST_LINE or len(right) >= LONGEST_LINE:
        return too_long_row(number, raw)
    if wrong := not_utf8(raw):
        return RawRow(number, raw, wrong)
    return RawRow(number, raw, {"prompt": left.decode(), "response": right.decode()})
