"""JSON files whose rows do not stand at the top: an array under a key, and SQuAD's questions inside of paragraphs."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from snaketune.data.readers.raw_row import RawRow
from snaketune.errors import DataError

BLOCK = 1 << 20  # bytes in hand at once
SIGN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}:,]', re.DOTALL)
LONGEST_HEAD = 64 << 20  # bytes before the array; whoever has more has another kind of file


class _Rest(io.RawIOBase):
    """A file of which some bytes have been read ahead."""

    def __init__(self, ahead: bytes, content: IO[bytes]) -> None:
        self._ahead, self._content = ahead, content

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        block = self._ahead[: len(into)] or self._content.read(len(into))
        self._ahead = self._ahead[len(into) :]
        into[: len(block)] = block
        return len(block)


def find_array(content: IO[bytes], path: str, wanted: str | None) -> tuple[IO[bytes], bool]:
    """Return the file from its array of rows on, and True; or the whole file, and False where its lines are the rows.

    The array stands under `wanted`, or is the only list of objects in the file's one object. Only what stands before it
    is held in memory.
    """
    head = content.read(BLOCK)
    lists, has_ended = _arrays(head, wanted)
    while wanted and not lists and not has_ended and len(head) < LONGEST_HEAD and (more := content.read(BLOCK)):
        head += more
        lists, has_ended = _arrays(head, wanted)
    if not wanted and len(lists) > 1:
        names = ", ".join(lists)
        raise DataError(f"this file holds several lists of rows: {names}", where=path, fix="Name one in `rows_key`")
    if wanted and not lists:
        raise DataError(f'there is no list under "{wanted}"', where=path, fix="Name the key of the list in `rows_key`")
    start = next(iter(lists.values()), 0)
    return io.BufferedReader(_Rest(head[start:], content), BLOCK), bool(lists)


ROW_KEYS = (b'"messages"', b'"conversations"', b'"segments"', b'"tools"', b'"history"', b'"turns"', b'"chosen"')


def _arrays(head: bytes, wanted: str | None) -> tuple[dict[str, int], bool]:
    """Return where the lists of objects at the top of an object begin, by key; and whether the object has ended.

    Lists that rows themselves have, such as messages, do not count unless they are wanted.
    """
    found: dict[str, int] = {}
    depth, key, before = 0, b"", b""
    for match in SIGN.finditer(head):
        sign = match[0]
        if sign == b"[" and depth == 1 and before == b":" and (wanted or key not in ROW_KEYS):
            name = json.loads(key)
            first = head[match.end() : match.end() + 100].lstrip()[:1]
            if name == wanted or (not wanted and first == b"{"):
                found[name] = match.start()
        if sign in b"[{":
            depth += 1
        elif sign in b"]}":
            depth -= 1
            if not depth:
                is_last = not head[match.end() :].strip()  # more objects behind it are rows, a line each
                return (found if is_last or wanted else {}), True
        elif sign == b":" and depth == 1:
            key = before
        before = sign
    return found, False


def squad_rows(content: IO[bytes], path: str) -> Iterator[RawRow]:
    """Yield one row for each question of a SQuAD file: title, context, question, answer (the first), id.

    A question that the text does not answer has no answer, and is rejected as such. Files of this form are read whole.
    """
    try:
        whole = json.load(io.TextIOWrapper(content, encoding="utf-8"))
        articles = whole["data"] if isinstance(whole, dict) else whole
        number = 0
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    number += 1
                    row = _question(article, paragraph, question)
                    yield RawRow(number, json.dumps(row, ensure_ascii=False), row)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"this file is not nested as SQuAD's are ({type(error).__name__}: {error})",
            where=path,
            fix="They hold data: a list of articles with paragraphs, each with a context and qas, which are questions "
            "with answers",
        ) from None


def _question(article: Any, paragraph: Any, question: Any) -> dict[str, object]:
    row = {"title": article.get("title", ""), "context": paragraph["context"], "question": question["question"]}
    answers = question.get("answers") or []
    if answers:
        row["answer"] = answers[0]["text"]
    if "id" in question:
        row["id"] = question["id"]
    return row
