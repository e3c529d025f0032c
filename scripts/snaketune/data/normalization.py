"""What counts as visible, as harmless and as the same text. Nothing here ever changes what is trained on."""

from __future__ import annotations

import re
import unicodedata

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
# Marks of a sentence. Not all of \W, which holds the vowel signs of Hindi, nor signs that arithmetic and code live by.
ASCII_MARKS = b"!\"',.:;?"
TO_SPACES = bytes.maketrans(ASCII_MARKS, b" " * len(ASCII_MARKS))
MARKS = re.compile(
    "[!\"',.:;?\u00a1\u00ab\u00bb\u00bf\u2010-\u2027\u3001-\u3002\u300c-\u300f\uff01\uff0c\uff0e\uff1a\uff1b\uff1f]+"
)


def is_blank(text: str) -> bool:
    """Whether a reader would see nothing: white space, no-break spaces, zero-width characters."""
    if not text:
        return True
    if text[0].isalnum():
        return False
    return not text.translate(INVISIBLE).strip()


def controls(text: str) -> str:
    """The first control character as U+001B with its place, or nothing."""
    found = CONTROLS.search(text)
    return f"U+{ord(found[0]):04X} at character {found.start() + 1}" if found else ""


def normal(text: str) -> str:
    """Text for comparing: NFC, every run of white space one space, none at the ends."""
    if text.isascii():
        plain = "  " not in text and "\n" not in text and "\t" not in text and "\r" not in text
        if plain and text[:1] != " " and text[-1:] != " ":  # most rows; splitting costs ten times as much
            return text
    else:
        text = unicodedata.normalize("NFC", text.translate(INVISIBLE))
    return " ".join(text.split())


def loose(text: str) -> str:
    """Text for recognising what is nearly the same: normal(), small letters, marks of a sentence left out.

    A text of such marks alone keeps them.
    """
    if text.isascii():
        words = text.lower().encode().translate(TO_SPACES).decode()
    else:
        words = MARKS.sub(" ", normal(text).casefold())
    return " ".join(words.split()) or normal(text)
