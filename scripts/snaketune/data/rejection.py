"""Why a row is not used: the fixed codes, and the exception that carries one from where it is known to the report."""

from __future__ import annotations

REASONS = {
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
    """A row that cannot be used. code: one of REASONS; detail: what was found in this row."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
