"""From a row's own fields to a conversation or a text: every format that people have, told apart row by row."""

from __future__ import annotations

from typing import Any

from snaketune.data.messages import conversation, from_sharegpt, refuse_deep
from snaketune.data.normalization import is_blank
from snaketune.data.readers.dispatch import kind_of
from snaketune.data.rejection import Rejection

ASKS = ("prompt", "question", "instruction")
ANSWERS = ("response", "completion", "answer", "output")
CHATS = ("messages", "conversations")
KNOWN = "prompt/response, prompt/completion, question/answer, instruction/input/output, messages, conversations, text"


def content_of(row: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    """{"messages": [...], "tools"?: [...]} or {"text": ...} from the fields of a row.

    fields: the configuration's own names, as {ours: yours}. Raises Rejection.
    """
    if fields:
        row = _renamed(row, fields)
    ask = next((name for name in ASKS if name in row), None)
    answer = next((name for name in ANSWERS if name in row), None)
    if ask is not None and answer is not None:
        return {"messages": _exchange(row, ask, answer, fields)}
    for name in CHATS:
        if name in row:
            return _chat(row, name, fields)
    if "text" in row:
        return {"text": _text(row, "text", fields)}
    if ask is not None:
        raise Rejection("missing-field", f"there is a {_shown(ask, fields)}, and no {_shown('response', fields)}")
    if answer is not None:
        raise Rejection("missing-field", f"there is a {_shown(answer, fields)}, and no {_shown('prompt', fields)}")
    found = ", ".join(name[:40] for name in list(row)[:8]) or "none"
    raise Rejection("unknown-format", f"the fields are {found}; known formats: {KNOWN}")


def _renamed(row: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    """The row under our names; a column of yours that happens to bear one of our names gives way."""
    theirs = set(fields.values())
    rest = {name: value for name, value in row.items() if name not in theirs and name not in fields}
    return rest | {ours: row[yours] for ours, yours in fields.items() if yours in row}


def _shown(name: str, fields: dict[str, str]) -> str:
    return f"`{fields.get(name, name)}`"


def _text(row: dict[str, Any], name: str, fields: dict[str, str]) -> str:
    value = row[name]
    if type(value) is not str:
        raise Rejection("wrong-type", f"{_shown(name, fields)} is {kind_of(value)}, not text")
    if is_blank(value):
        raise Rejection("empty", f"{_shown(name, fields)} holds nothing that can be seen")
    return value


def _exchange(row: dict[str, Any], ask: str, answer: str, fields: dict[str, str]) -> list[dict[str, Any]]:
    """One question and one answer; a system text and an input are optional, and may be empty or null."""
    asked = _text(row, ask, fields)
    answered = _text(row, answer, fields)
    if ask == "instruction":
        further = _optional(row, "input", fields)
        if further:
            asked = f"{asked}\n\n{further}"
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    system = _optional(row, "system", fields)
    return [{"role": "system", "content": system}, *messages] if system else messages


def _optional(row: dict[str, Any], name: str, fields: dict[str, str]) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if type(value) is not str:
        raise Rejection("wrong-type", f"{_shown(name, fields)} is {kind_of(value)}, not text")
    return "" if is_blank(value) else value


def _chat(row: dict[str, Any], name: str, fields: dict[str, str]) -> dict[str, Any]:
    turns = row[name]
    if type(turns) is not list:
        raise Rejection("wrong-type", f"{_shown(name, fields)} is {kind_of(turns)}, not a list of turns")
    if name == "conversations":
        turns = from_sharegpt(turns)
    content: dict[str, Any] = {"messages": conversation(turns, _optional(row, "system", fields))}
    tools = row.get("tools")
    if tools is not None and tools != []:
        if type(tools) is not list or not all(type(tool) is dict for tool in tools):
            raise Rejection("wrong-type", f"`tools` is {kind_of(tools)}, not a list of tool descriptions")
        refuse_deep(tools)
        content["tools"] = tools
    return content
