"""What rows are compared by, which sees neither spacing, nor invisible characters, nor the Unicode form of a letter."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any, NamedTuple

import msgspec

from snaketune.data.normalization import loose, normal

KEY = 16  # bytes of a row's key: for 500,000 rows the chance that any two meet by accident is 4e-28
OPENING = 20  # characters; a shorter first question of a longer conversation ("hi there") makes no kinship

encode = msgspec.json.Encoder(order="sorted").encode


class Identity(NamedTuple):
    """What a row is compared by.

    key: of all that is trained on, KEY bytes, equal for exact duplicates; asked, answered: its loose() text; prompt,
    opening: 64-bit keys of all that stands before the last answer, and of the first question of a longer conversation
    (0 where there is none).
    """

    key: bytes
    asked: str
    answered: str
    prompt: int
    opening: int


def identify(record: dict[str, Any]) -> Identity:
    """The identity of a record. System texts and tools are part of its key, and make no kinship."""
    if "text" in record:
        return Identity(digest(normal(record["text"])), "", loose(record["text"]), 0, 0)
    exact: list[str] = []
    asked: list[str] = []
    answered: list[str] = []
    before: list[str] = []  # all turns but the last, which is the answer
    for message in record["messages"]:
        role, content = message["role"], message["content"]
        exact.append(role)
        exact.append(normal(content))
        if role == "system":
            continue
        said = loose(content)
        if "tool_calls" in message:
            calls = encode(message["tool_calls"]).decode()
            exact.append(calls)
            said = f"{said} {loose(calls)}".strip()
        (answered if role == "assistant" else asked).append(said)
        before.append(said)
    if "tools" in record:
        exact.append(encode(record["tools"]).decode())
    opening = number(before[0]) if len(before) > 2 and len(before[0]) >= OPENING else 0
    return Identity(
        digest("\x00".join(exact)), " ".join(asked), " ".join(answered), number("\x00".join(before[:-1])), opening
    )


def digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=KEY).digest()


def number(text: Hashable) -> int:
    """A 64-bit key for finding equal texts within this process; Python's own hash differs from one to the next."""
    return hash(text) & 0xFFFFFFFFFFFFFFFF
