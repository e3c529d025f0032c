"""Which rows are the same: keys that do not see spacing, invisible characters or the Unicode form of a letter."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from snaketune.data.text import loose, normal

KEY = 16  # bytes of a row's key: for 500,000 rows the chance that any two meet by accident is 4e-28
OPENING = 20  # characters; a shorter first question of a longer conversation ("hi there") makes no kinship

encode = msgspec.json.Encoder(order="sorted").encode


def row_key(record: dict[str, Any]) -> bytes:
    """The key of all that is trained on in a record: equal for exact duplicates, KEY bytes."""
    if "text" in record:
        return digest(normal(record["text"]))
    parts = []
    for message in record["messages"]:
        parts.append(message["role"])
        parts.append(normal(message["content"]))
        if "tool_calls" in message:
            parts.append(encode(message["tool_calls"]).decode())
    if "tools" in record:
        parts.append(encode(record["tools"]).decode())
    return digest("\x00".join(parts))


def prompts(record: dict[str, Any]) -> list[str]:
    """The questions by which a conversation is akin to others: all before its last answer, and its opening."""
    if "text" in record:
        return []
    asked = [loose(message["content"]) for message in record["messages"][:-1] if message["role"] != "system"]
    if len(asked) > 1 and len(asked[0]) >= OPENING:
        return ["\x00".join(asked), asked[0]]
    return ["\x00".join(asked)]


def digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=KEY).digest()


def number(text: str) -> int:
    """A 64-bit key, for tables of numbers."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
