"""Row comparison keys, insensitive to whitespace, invisible characters and Unicode normalization form.

The functions on text are for comparison only; training text is never modified.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Hashable
from typing import NamedTuple

import msgspec

from snaketune.contracts.data import Content

# Characters that take no ink and that str.strip() leaves in place; NBSP and its like it strips itself.
INVISIBLE = dict.fromkeys(
    map(
        ord,
        "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
        "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u2800\u3164\ufe0e\ufe0f\ufeff\uffa0",
    )
)
# C0 without tab, line feed and carriage return; DEL; C1 without NEL, which old mainframes and some word processors use.
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
# Punctuation of prose. Not all of \W, which holds the vowel signs of Hindi, nor signs that arithmetic and code live by.
ASCII_PUNCTUATION = b"!\"',.:;?"
TO_SPACES = bytes.maketrans(ASCII_PUNCTUATION, b" " * len(ASCII_PUNCTUATION))
PUNCTUATION = re.compile(
    "[!\"',.:;?\u00a1\u00ab\u00bb\u00bf\u2010-\u2027\u3001-\u3002\u300c-\u300f\uff01\uff0c\uff0e\uff1a\uff1b\uff1f]+"
)


def is_blank(text: str) -> bool:
    """Whether a reader would see nothing: white space, no-break spaces, zero-width characters."""
    if not text:
        return True
    if text[0].isalnum():
        return False
    return not text.translate(INVISIBLE).strip()


def first_control_char(text: str) -> str:
    """The first control character and its position, or an empty string."""
    found = CONTROLS.search(text)
    return f"U+{ord(found[0]):04X} at character {found.start() + 1}" if found else ""


def normalize(text: str) -> str:
    """Normalize for comparison: NFC, each run of white space one space, none at the ends."""
    if text.isascii():
        plain = "  " not in text and "\n" not in text and "\t" not in text and "\r" not in text
        if plain and text[:1] != " " and text[-1:] != " ":  # most rows; splitting costs ten times as much
            return text
    else:
        text = unicodedata.normalize("NFC", text.translate(INVISIBLE))
    return " ".join(text.split())


def fold(text: str) -> str:
    """Normalize further, for near duplicates: casefold and drop punctuation. A text of punctuation alone keeps it."""
    if text.isascii():
        words = text.lower().encode().translate(TO_SPACES).decode()
    else:
        words = PUNCTUATION.sub(" ", normalize(text).casefold())
    return " ".join(words.split()) or normalize(text)


KEY_BYTES = 16  # for 500,000 rows the chance that any two meet by accident is 4e-28
MIN_OPENING_LENGTH = 20  # characters; sharing a shorter first prompt ("hi there") relates no conversations

encode = msgspec.json.Encoder(order="sorted").encode


class RowKeys(NamedTuple):
    """What a row is compared by.

    key: hash of all that is trained on, KEY_BYTES long, equal for exact duplicates; prompt_text, response_text: folded
    text; prompt: 64-bit hash of all that precedes the last response; opening: that of the first prompt of a longer
    conversation (each 0 where there is none).
    """

    key: bytes
    prompt_text: str
    response_text: str
    prompt: int
    opening: int


def row_keys(record: Content) -> RowKeys:
    """Compute the keys of a record. System texts and tools are part of `key` only: sharing them relates no rows."""
    if "text" in record:
        return RowKeys(content_hash(normalize(record["text"])), "", fold(record["text"]), 0, 0)
    exact: list[str] = []
    prompt_text: list[str] = []
    response_text: list[str] = []
    before: list[str] = []  # all turns; the last is the response
    for message in record["messages"]:
        role, content = message["role"], message["content"]
        exact.append(role)
        exact.append(normalize(content))
        if role == "system":
            continue
        text = fold(content)
        if "tool_calls" in message:
            calls = encode(message["tool_calls"]).decode()
            exact.append(calls)
            text = f"{text} {fold(calls)}".strip()
        (response_text if role == "assistant" else prompt_text).append(text)
        before.append(text)
    if "tools" in record:
        exact.append(encode(record["tools"]).decode())
    opening = hash64(before[0]) if len(before) > 2 and len(before[0]) >= MIN_OPENING_LENGTH else 0
    return RowKeys(
        content_hash("\x00".join(exact)),
        " ".join(prompt_text),
        " ".join(response_text),
        hash64("\x00".join(before[:-1])),
        opening,
    )


def content_hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def hash64(text: Hashable) -> int:
    """A 64-bit key for finding equal texts within this process; Python's own hash differs from one to the next."""
    return hash(text) & 0xFFFFFFFFFFFFFFFF
