"""The rows of a file, one at a time, whatever the file is: JSON Lines, a JSON array, CSV, TSV, Parquet, text by lines.

Every reader yields `Row`s and holds no more than one row and one buffer. What is wrong with a row is a Rejection in its
place; what is wrong with a file as a whole is a DataError.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import msgspec

from snaketune.data.rejection import Rejection
from snaketune.data.sources import at_home
from snaketune.errors import DataError

LONGEST_LINE = 16 << 20  # bytes; a longer line is rejected without being held in memory
KEPT_OF_A_LONG_LINE = 1000  # bytes of it in rejected.jsonl
BLOCK = 1 << 20  # bytes of an array in hand at once
WHITE = b" \t\r\n"
STRUCTURE = re.compile(rb'\\.|["\[\]{},]', re.DOTALL)  # an escape, or a sign that may begin or end something
PARTNERS = {b"]": b"[", b"}": b"{"}
BOM = b"\xef\xbb\xbf"
SAVE_AS = "In Excel or LibreOffice: save it as .xlsx or as CSV UTF-8, and name that file here"
BINARY = (  # how files begin that people take for text, what they are, and what to do
    (b"PK\x03\x04", "an Excel workbook or another zip archive", "If it is a workbook, end its name in .xlsx"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", SAVE_AS),
    (b"PAR1", "a Parquet file", "End its name in .parquet"),
)
decode = msgspec.json.Decoder().decode


class Row(NamedTuple):
    """One row as it stands: its line (from 1), its text (for rejected.jsonl), its fields or why there are none.

    clean: it certainly holds no control character.
    """

    line: int
    raw: bytes | str
    value: Any
    clean: bool = False


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed; what goes wrong while reading them is a DataError."""
    import zstandard

    try:
        with contextlib.ExitStack() as stack:
            content: Any = stack.enter_context(open(path, "rb", buffering=1 << 20))
            if path.lower().endswith(".gz"):
                content = stack.enter_context(gzip.open(content))
            elif path.lower().endswith(".zst"):
                content = stack.enter_context(io.BufferedReader(_Zstandard(content), 1 << 20))
            yield content
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise DataError(
            f"the compressed file is damaged or cut off ({error})", where=path, fix="Make or download it again"
        ) from None
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror or error})", where=path) from None


class _Zstandard(io.RawIOBase):
    """A zstd file decompressed; unlike the library's own reader, it notices a file that is cut off."""

    def __init__(self, compressed: IO[bytes]) -> None:
        self.compressed = compressed
        self.frame: Any = None
        self.waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while len(self.waiting) < len(into):
            block = self.compressed.read(1 << 16)
            if not block:
                break
            self.waiting += self._decompressed(block)
        if not self.waiting and self.frame is not None:
            raise EOFError("it ends within a frame")
        count = min(len(into), len(self.waiting))
        into[:count], self.waiting = self.waiting[:count], self.waiting[count:]
        return count

    def _decompressed(self, block: bytes) -> bytes:
        import zstandard

        found = b""
        while block:
            if self.frame is None:
                self.frame = zstandard.ZstdDecompressor().decompressobj()
            found += self.frame.decompress(block)
            block = b""
            if self.frame.eof:
                block, self.frame = self.frame.unused_data, None
        return found


@contextlib.contextmanager
def text_of(path: str, container: str = "") -> Iterator[tuple[IO[bytes], bytes]]:
    """The bytes of a UTF-8 file without a byte order mark, and how they begin.

    A table that Excel saved as "Unicode text", which is UTF-16, is recoded. Raises DataError for other UTF-16 and
    UTF-32, and for a file that is no text at all.
    """
    with opened(path) as content:
        head = content.peek(1 << 16)[: 1 << 16]  # type: ignore[attr-defined]
        for start, kind, mend in BINARY:
            if head.startswith(start):
                raise DataError(f"this is {kind}, not text", where=path, fix=mend)
        zeros = head.count(0)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff") and container in ("csv", "tsv"):
            yield _Recoded(content), b""  # type: ignore[misc]
            return
        if head[:2] in (b"\xff\xfe", b"\xfe\xff") or (zeros > len(head) // 4 and zeros > 1):
            raise DataError(
                "this file is in UTF-16 or UTF-32, not UTF-8",
                where=path,
                why="Every single row would look damaged",
                fix=f"Save it as UTF-8, for instance with: {recode(path, 'UTF-16')}",
            )
        if head.startswith(BOM):
            content.read(len(BOM))
            head = head[len(BOM) :]
        yield content, head


def recode(path: str, encoding: str) -> str:
    """The command that writes a copy of a text file in UTF-8 beside it."""
    copy = Path(path).with_suffix(f".utf8{Path(path).suffix}")
    return f"iconv -f {encoding} -t UTF-8 {shlex.quote(path)} > {shlex.quote(str(copy))}"


class _Recoded:
    """The lines of a UTF-16 file as UTF-8."""

    def __init__(self, content: IO[bytes]) -> None:
        self.text = io.TextIOWrapper(content, encoding="utf-16", errors="replace", newline="\n")

    def readline(self, size: int) -> bytes:
        return self.text.readline(size).encode()


def rows(path: str, container: str, source: dict[str, Any]) -> Iterator[Row]:
    """The rows of one file; container: a name of sources.CONTAINERS or sources.BY_LINE; source: its settings."""
    if container in ("parquet", "xlsx"):
        from snaketune.data.readers.table_rows import parquet_rows, workbook_rows

        yield from parquet_rows(path) if container == "parquet" else workbook_rows(path, source.get("sheet"))
        return
    with text_of(path, container) as (content, head):
        if container in ("csv", "tsv"):
            from snaketune.data.readers.table_rows import table_rows

            yield from table_rows(content, path, container)
        elif container == "pairs":
            yield from pair_rows(content)
        elif container == "parallel":
            with text_of(at_home(source["target_path"])) as (target, _):
                yield from parallel_rows(content, target, source, path)
        elif is_array(head, container):
            yield from array_rows(content)
        else:
            yield from json_rows(content)


def is_array(head: bytes, container: str) -> bool:
    """Whether a JSON file is one array of rows: `.json` that begins with `[`, `.jsonl` that begins with `[` and `{`."""
    start = head.lstrip()
    if not start.startswith(b"["):
        return False
    return container == "json" or start[1:].lstrip().startswith(b"{")


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
        line = line.strip(WHITE)
        if line:
            yield number, line


def json_rows(content: IO[bytes]) -> Iterator[Row]:
    """JSON Lines: a value a line."""
    for number, line in lines(content):
        yield json_row(number, line)


def json_row(number: int, line: bytes) -> Row:
    if len(line) >= LONGEST_LINE:
        return overlong(number, line)
    try:
        value = decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Row(number, line, explained(line))
    if type(value) is not dict:
        return Row(number, line, Rejection("not-an-object", f"the line is {kind_of(value)}, not an object"))
    # In JSON a control character must be an escape; only DEL and C1 (in UTF-8 after 0xC2) may stand as they are.
    suspect = b"\\u00" in line or b"\\b" in line or b"\\f" in line or b"\x7f" in line or b"\xc2" in line
    return Row(number, line, value, not suspect)


def overlong(number: int, beginning: bytes) -> Row:
    said = f"the row is longer than {LONGEST_LINE >> 20} MiB; its first {KEPT_OF_A_LONG_LINE} bytes are kept here"
    return Row(number, beginning[:KEPT_OF_A_LONG_LINE], Rejection("too-long", said))


def not_utf8(raw: bytes) -> Rejection | None:
    """What is wrong with the encoding of some bytes, if anything."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        at = f"byte 0x{raw[error.start]:02x} at {error.start + 1}"
        return Rejection("bad-encoding", f"not UTF-8: {at}; another encoding, such as Latin-1 or Windows-1252?")
    return None


def explained(line: bytes) -> Rejection:
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


def kind_of(value: Any) -> str:
    """A JSON value's kind, in words."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def array_rows(content: IO[bytes]) -> Iterator[Row]:
    """The elements of one JSON array, without holding the array.

    Elements are cut at the commas outside of strings and brackets, so that a broken one does not take the rest along.
    """
    line = 1
    for text, newlines in _elements(content):
        element = text.lstrip(WHITE)
        if element:
            yield json_row(line + text[: len(text) - len(element)].count(b"\n"), element.rstrip(WHITE))
        line += newlines


def _elements(content: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """The text between the commas of an array's first level, and how many line ends were in it.

    Of an element that is too long, only the beginning is given.
    """
    stack: list[bytes] = []  # the brackets that are open, the array's own first
    quoted, held, newlines = False, b"", 0
    while block := content.read(BLOCK):
        while block.endswith(b"\\") and (more := content.read(1)):  # an escape must not be cut in two
            block += more
        start = 0
        for found in STRUCTURE.finditer(block):
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
            elif sign in PARTNERS and PARTNERS[sign] in stack[1 - boundary :]:
                while stack.pop() != PARTNERS[sign]:
                    pass
            if boundary:
                text = block[start : found.start()]
                yield (held + text)[:LONGEST_LINE], newlines + text.count(b"\n")
                start, held, newlines = found.end(), b"", 0
        newlines += block.count(b"\n", start)
        if len(held) < LONGEST_LINE:
            held += block[start:]
    yield held[:LONGEST_LINE], newlines


def pair_rows(content: IO[bytes]) -> Iterator[Row]:
    """Prompt and answer on alternating lines; blank lines may stand between pairs, not inside one."""
    asked: tuple[int, bytes] | None = None
    number = 0
    while line := content.readline(LONGEST_LINE):
        number += 1
        line = line.strip(WHITE)
        if asked is None:
            asked = (number, line) if line else None
            continue
        yield _pair(asked[0], asked[1], line, b"\n")
        asked = None
    if asked:
        yield Row(*asked, Rejection("missing-field", "the file ends after this prompt; its answer line is missing"))


def parallel_rows(asked: IO[bytes], answered: IO[bytes], source: dict[str, Any], path: str) -> Iterator[Row]:
    """Two files, line by line: the prompt is the source's `template` around a line of the first, the answer the second.

    Raises DataError when one file is longer, since it cannot be told where they fell out of step.
    """
    template, number = source["template"], 0
    while True:
        left, right = asked.readline(LONGEST_LINE), answered.readline(LONGEST_LINE)
        if bool(left) != bool(right):
            longer, shorter = (path, source["target_path"]) if left else (source["target_path"], path)
            raise DataError(
                f"{longer} has more lines than {shorter}, which has {number}",
                where=path,
                why="The two files must be aligned line by line; from where on they are not cannot be told",
                fix="Align them again",
            )
        if not left:
            return
        number += 1
        left, right = left.strip(WHITE), right.strip(WHITE)
        if left or right:
            row = _pair(number, left, right, b"\t")
            if type(row.value) is dict and left:
                row.value["prompt"] = template.replace("{source}", row.value["prompt"])
            yield row


def _pair(number: int, left: bytes, right: bytes, between: bytes) -> Row:
    raw = left + between + right
    if len(left) >= LONGEST_LINE or len(right) >= LONGEST_LINE:
        return overlong(number, raw)
    if wrong := not_utf8(raw):
        return Row(number, raw, wrong)
    return Row(number, raw, {"prompt": left.decode(), "response": right.decode()})
