"""A row as it stands in a file, the reason why one cannot be used, and the opening of files."""

from __future__ import annotations

import contextlib
import gzip
import io
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from snaketune.errors import DataError

REJECTION_REASONS = {
    "invalid-json": "the line is not valid JSON",
    "not-an-object": "the line is JSON, but not an object with named fields",
    "bad-encoding": "the text is not valid UTF-8, or holds half a character",
    "unknown-format": "none of the known sets of fields is there",
    "missing-field": "a field that its format needs is not there",
    "wrong-type": "a field does not hold text, or a list is something else",
    "empty": "a field holds nothing that can be seen",
    "too-short": "fewer characters than data.min_characters",
    "too-long": "more characters than data.max_characters",
    "control-characters": "invisible control characters, such as NUL or terminal colours",
    "no-assistant": "a conversation without a turn of the assistant",
    "bad-roles": "roles that are unknown or in an order no model is trained on",
}


class Rejection(Exception):
    """A row that cannot be used. code: one of REJECTION_REASONS; detail: what was found in this row."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


LONGEST_LINE = 16 << 20  # bytes; a longer line is rejected without being held in memory
LONG_LINE_PREFIX = 1000  # bytes of it in rejected.jsonl
BOM = b"\xef\xbb\xbf"
SAVE_AS = "In Excel or LibreOffice: save it as .xlsx or as CSV UTF-8, and name that file here"
BINARY = (  # how files begin that people take for text, what they are, and what to do
    (b"PK\x03\x04", "an Excel workbook or another zip archive", "If it is a workbook, end its name in .xlsx"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", SAVE_AS),
    (b"PAR1", "a Parquet file", "End its name in .parquet"),
)


class RawRow(NamedTuple):
    """One row as it stands: its line (from 1), its text (for rejected.jsonl), its fields or why there are none.

    has_no_control_chars: it certainly holds no control character.
    """

    line: int
    raw: bytes | str
    parsed: Any
    has_no_control_chars: bool = False


@contextlib.contextmanager
def open_decompressed(path: str) -> Iterator[IO[bytes]]:
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
        self.buffered = b""

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while len(self.buffered) < len(into):
            block = self.compressed.read(1 << 16)
            if not block:
                break
            self.buffered += self._decompressed(block)
        if not self.buffered and self.frame is not None:
            raise EOFError("it ends within a frame")
        count = min(len(into), len(self.buffered))
        into[:count], self.buffered = self.buffered[:count], self.buffered[count:]
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
def open_text(path: str, file_format: str = "") -> Iterator[tuple[IO[bytes], bytes]]:
    """The bytes of a UTF-8 file without a byte order mark, and how they begin.

    A table that Excel saved as "Unicode text", which is UTF-16, is recoded. Raises DataError for other UTF-16 and
    UTF-32, and for a file that is no text at all.
    """
    with open_decompressed(path) as content:
        head = content.peek(1 << 16)[: 1 << 16]  # type: ignore[attr-defined]
        for start, kind, fix in BINARY:
            if head.startswith(start):
                raise DataError(f"this is {kind}, not text", where=path, fix=fix)
        zeros = head.count(0)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff") and file_format in ("csv", "tsv"):
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


def too_long_row(number: int, beginning: bytes) -> RawRow:
    detail = f"the row is longer than {LONGEST_LINE >> 20} MiB; its first {LONG_LINE_PREFIX} bytes are kept here"
    return RawRow(number, beginning[:LONG_LINE_PREFIX], Rejection("too-long", detail))


def not_utf8(raw: bytes) -> Rejection | None:
    """What is wrong with the encoding of some bytes, if anything."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        at = f"byte 0x{raw[error.start]:02x} at {error.start + 1}"
        return Rejection("bad-encoding", f"not UTF-8: {at}; another encoding, such as Latin-1 or Windows-1252?")
    return None


def json_type_name(value: Any) -> str:
    """A JSON value's kind, in words."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
