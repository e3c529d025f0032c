"""Conversations: turns whose roles are known and stand in an order that a model can be trained on."""

from __future__ import annotations

import json
from typing import Any

from snaketune.data.normalization import is_blank
from snaketune.data.readers.dispatch import kind_of
from snaketune.data.rejection import Rejection

ROLES = ("system", "user", "assistant", "tool")
DEEPEST = 64
ALSO = {"human": "user", "gpt": "assistant", "function": "tool", "observation": "tool", "developer": "system"}


def from_sharegpt(turns: list[Any]) -> list[Any]:
    """ShareGPT's from/value turns as role/content ones; a turn that is in our form already stays."""
    return [
        {"role": turn["from"], "content": turn["value"]}
        if type(turn) is dict and "from" in turn and "value" in turn
        else turn
        for turn in turns
    ]


def conversation(turns: list[Any], system: str = "") -> list[dict[str, Any]]:
    """The turns, checked and with only the fields that a chat template reads.

    system: a system text that stands beside the turns; the turns' own goes before it. Raises Rejection.
    """
    messages = [_message(number, turn) for number, turn in enumerate(turns, 1)]
    if not messages:
        raise Rejection("empty", "the conversation has no turn")
    if messages[0]["role"] == "system" and is_blank(messages[0]["content"]):
        del messages[0]
    elif messages[0]["role"] != "system" and system:
        messages.insert(0, {"role": "system", "content": system})
    _check_order([message["role"] for message in messages])
    for number, message in enumerate(messages, 1):
        if message["role"] != "tool" and "tool_calls" not in message and is_blank(message["content"]):
            raise Rejection("empty", f"turn {number} ({message['role']}) holds nothing that can be seen")
    return messages


def _message(number: int, turn: Any) -> dict[str, Any]:
    if type(turn) is not dict:
        raise Rejection("wrong-type", f"turn {number} is {kind_of(turn)}, not an object with role and content")
    if "role" not in turn:
        raise Rejection("missing-field", f"turn {number} has no `role`")
    role = turn["role"]
    if type(role) is not str:
        raise Rejection("wrong-type", f"the role of turn {number} is {kind_of(role)}, not text")
    role = ALSO.get(role, role)
    if role not in ROLES:
        raise Rejection("bad-roles", f'turn {number} has the role "{role[:40]}"; known are {", ".join(ROLES)}')
    message: dict[str, Any] = {"role": role, "content": _content(number, role, turn)}
    if turn.get("tool_calls"):
        if role != "assistant":
            raise Rejection("bad-roles", f"turn {number} ({role}) calls tools; only the assistant can")
        message["tool_calls"] = [_tool_call(number, call) for call in _list(number, turn["tool_calls"])]
    for name in ("name", "tool_call_id"):
        if role == "tool" and type(turn.get(name)) is str:
            message[name] = turn[name]
    return message


def _content(number: int, role: str, turn: dict[str, Any]) -> str:
    """A turn's text. Null or absent is right where tools are called; a list of text parts is joined."""
    content = turn.get("content")
    if content is None and role == "assistant" and turn.get("tool_calls"):
        return ""
    if "content" not in turn:
        raise Rejection("missing-field", f"turn {number} ({role}) has no `content`")
    if type(content) is list and content and all(_is_text_part(part) for part in content):
        return "".join(part["text"] for part in content)
    if type(content) is not str:
        raise Rejection("wrong-type", f"the content of turn {number} ({role}) is {kind_of(content)}, not text")
    return content


def _is_text_part(part: Any) -> bool:
    return type(part) is dict and part.get("type") == "text" and type(part.get("text")) is str


def _list(number: int, calls: Any) -> list[Any]:
    if type(calls) is not list:
        raise Rejection("wrong-type", f"the tool_calls of turn {number} are {kind_of(calls)}, not a list")
    return calls


def _tool_call(number: int, call: Any) -> dict[str, Any]:
    """A call in the form chat templates read: arguments as an object, which OpenAI's files hold as JSON text."""
    function = call.get("function", call) if type(call) is dict else None
    if type(function) is not dict or type(function.get("name")) is not str:
        raise Rejection("wrong-type", f"a tool call of turn {number} has no function name")
    arguments = function.get("arguments", {})
    if type(arguments) is str:
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            raise Rejection("wrong-type", f"the arguments of a tool call of turn {number} are not JSON") from None
    if type(arguments) is not dict:
        raise Rejection("wrong-type", f"the arguments of a tool call of turn {number} are not an object")
    refuse_deep(arguments)
    checked: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    if type(call.get("id")) is str:
        checked["id"] = call["id"]
    return checked


def refuse_deep(value: Any, left: int = DEEPEST) -> None:
    """Reject a value whose brackets are nested deeper than any reader of the record can be trusted to follow."""
    if not left:
        raise Rejection("invalid-json", f"brackets nested more than {DEEPEST} deep")
    for below in value.values() if type(value) is dict else value if type(value) is list else ():
        refuse_deep(below, left - 1)


def _check_order(roles: list[str]) -> None:
    """System first if at all; user and assistant in turn, tool turns between calls and answers; the assistant last."""
    if "assistant" not in roles:
        raise Rejection("no-assistant", "no turn is the assistant's, so there is nothing to learn")
    before = "the beginning"
    for number, role in enumerate(roles, 1):
        if before not in ALLOWED_BEFORE[role]:
            raise Rejection("bad-roles", f"turn {number} ({role}) follows {before}")
        before = role
    if before != "assistant":
        raise Rejection("bad-roles", f"the last turn is the {before}'s, not the assistant's")


ALLOWED_BEFORE = {
    "system": ("the beginning",),
    "user": ("the beginning", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
