"""Answers from real use: the log of an OpenAI-compatible client, JSON Lines of requests, answers and thumbs.

Clients and proxies write these in many shapes; what is looked for is a list of messages (or a prompt), the text of the
answer, and a mark, under the names that are in use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import cast

import msgspec

from snaketune.contracts.data import Message
from snaketune.data.conversations import PLAIN
from snaketune.data.deduplication import is_blank
from snaketune.data.readers.raw_row import Rejection
from snaketune.ui.feedback import FeedbackRow, Mark

MAX_LISTED = 20  # lines that cannot be used
GOOD = {"up", "thumbs_up", "thumbsup", "like", "liked", "good", "positive", "1", "true", "+1", "👍", "accepted"}
BAD = {
    "down",
    "thumbs_down",
    "thumbsdown",
    "dislike",
    "disliked",
    "bad",
    "negative",
    "0",
    "-1",
    "false",
    "👎",
    "rejected",
}
MARKS = ("thumb", "thumbs", "feedback", "rating", "mark", "score", "vote")
CORRECTIONS = ("correction", "corrected", "expected", "ideal", "better_answer")


class Unusable(msgspec.Struct, frozen=True, kw_only=True):
    """A line that nothing can be made of, and why."""

    line: int
    why: str


class LogRead(msgspec.Struct, kw_only=True):
    """What a log holds."""

    rows: list[FeedbackRow]
    unusable: list[Unusable]
    unusable_count: int
    unmarked: int


def read_log(content: bytes, run: str) -> LogRead:
    """The answers of a log that somebody has marked or corrected; the others are counted."""
    found = LogRead(rows=[], unusable=[], unusable_count=0, unmarked=0)
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = _row(line, run)
        except Rejection as reason:
            found.unusable_count += 1
            if len(found.unusable) < MAX_LISTED:
                found.unusable.append(Unusable(line=number, why=reason.detail))
            continue
        if row is None:
            found.unmarked += 1
        else:
            found.rows.append(row)
    return found


def _row(line: bytes, run: str) -> FeedbackRow | None:
    """The row of one line; None for an answer without a mark. Raises Rejection."""
    try:
        given = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise Rejection("invalid-json", f"it is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise Rejection("not-an-object", "it is JSON, but not an object")
    messages, answer = _messages(given), _answer(given)
    if is_blank(answer):
        raise Rejection("empty", "there is no answer in it")
    correction = next((given[name] for name in CORRECTIONS if isinstance(given.get(name), str)), "")
    mark = "corrected" if not is_blank(correction) else _mark(given)
    if mark is None:
        return None
    name = given.get("id") or hashlib.sha256(line).hexdigest()[:16]
    model = given.get("model") or _below(given, "request").get("model") or _below(given, "response").get("model")
    return FeedbackRow(
        messages=messages,
        answer=answer,
        mark=cast(Mark, mark),
        run=run,
        variant=str(model or "unknown")[:200],
        origin="log",
        row=str(name)[:200],
        use="marked",
        response=correction if mark == "corrected" else "",
    )


def _messages(given: Mapping[str, object]) -> list[Message]:
    """The conversation before the answer, checked as rows are."""
    request = _below(given, "request") or _below(given, "body") or given
    turns = request.get("messages")
    if turns is None and isinstance(prompt := request.get("prompt", request.get("input")), str):
        turns = [{"role": "user", "content": prompt}]
    if not isinstance(turns, list) or not turns:
        raise Rejection("missing-field", "there are no `messages` and no `prompt` in it")
    if isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant":
        turns = turns[:-1]
    return PLAIN.messages([*turns, {"role": "assistant", "content": "-"}])[:-1]


def _answer(given: Mapping[str, object]) -> str:
    """The text of the answer: in the reply of the API, or in a field of its own, or the last turn."""
    reply = _below(given, "response")
    choices = reply.get("choices") or given.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        content = _below(choices[0], "message").get("content", choices[0].get("text"))
        return content if isinstance(content, str) else ""
    for name in ("answer", "completion", "output", "response", "content"):
        value = given.get(name) if isinstance(given.get(name), str) else reply.get(name)
        if isinstance(value, str):
            return value
    turns = given.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns and isinstance(turns[-1], dict) else {}
    content = last.get("content") if last.get("role") == "assistant" else ""
    return content if isinstance(content, str) else ""


def _mark(given: Mapping[str, object]) -> str | None:
    for name in MARKS:
        value = given.get(name)
        if isinstance(value, dict):
            value = next((value[key] for key in ("thumb", "value", "rating", "score", "type") if key in value), None)
        word = str(value).strip().lower().removesuffix(".0") if value is not None else ""
        if word in GOOD:
            return "good"
        if word in BAD:
            return "bad"
    return None


def _below(given: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = given.get(name)
    return found if isinstance(found, dict) else {}
