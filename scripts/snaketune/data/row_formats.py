"""From the fields of a row to a conversation or a text, in every format that people have; detected row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from snaketune.contracts.data import Content, Message
from snaketune.data.deduplication import is_blank
from snaketune.data.readers.raw_row import Rejection, json_type_name

Fields = Mapping[str, object]  # a row as it was parsed: its own names, any JSON values

ROLES = ("system", "user", "assistant", "tool")
MAX_NESTING = 64
ROLE_ALIASES = {"human": "user", "gpt": "assistant", "function": "tool", "observation": "tool", "developer": "system"}


def from_sharegpt(turns: list[Any]) -> list[Any]:
    """ShareGPT's from/value turns as role/content ones; a turn that is in our form already stays."""
    return [
        {"role": turn["from"], "content": turn["value"]}
        if type(turn) is dict and "from" in turn and "value" in turn
        else turn
        for turn in turns
    ]


def validate_messages(turns: list[Any], system: str = "") -> list[Message]:
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


def _message(number: int, turn: Any) -> Message:
    if type(turn) is not dict:
        raise Rejection("wrong-type", f"turn {number} is {json_type_name(turn)}, not an object with role and content")
    if "role" not in turn:
        raise Rejection("missing-field", f"turn {number} has no `role`")
    role = turn["role"]
    if type(role) is not str:
        raise Rejection("wrong-type", f"the role of turn {number} is {json_type_name(role)}, not text")
    role = ROLE_ALIASES.get(role, role)
    if role not in ROLES:
        raise Rejection("bad-roles", f'turn {number} has the role "{role[:40]}"; known are {", ".join(ROLES)}')
    message: Message = {"role": role, "content": _content(number, role, turn)}
    if turn.get("tool_calls"):
        if role != "assistant":
            raise Rejection("bad-roles", f"turn {number} ({role}) calls tools; only the assistant can")
        message["tool_calls"] = [_tool_call(number, call) for call in _list(number, turn["tool_calls"])]
    if role == "tool" and type(turn.get("name")) is str:
        message["name"] = turn["name"]
    if role == "tool" and type(turn.get("tool_call_id")) is str:
        message["tool_call_id"] = turn["tool_call_id"]
    return message


def _content(number: int, role: str, turn: Fields) -> str:
    """A turn's text. Null or absent is right where tools are called; a list of text parts is joined."""
    content = turn.get("content")
    if content is None and role == "assistant" and turn.get("tool_calls"):
        return ""
    if "content" not in turn:
        raise Rejection("missing-field", f"turn {number} ({role}) has no `content`")
    if type(content) is list and content and all(_is_text_part(part) for part in content):
        return "".join(part["text"] for part in content)
    if type(content) is not str:
        raise Rejection("wrong-type", f"the content of turn {number} ({role}) is {json_type_name(content)}, not text")
    return content


def _is_text_part(part: Any) -> bool:
    return type(part) is dict and part.get("type") == "text" and type(part.get("text")) is str


def _list(number: int, calls: Any) -> list[Any]:
    if type(calls) is not list:
        raise Rejection("wrong-type", f"the tool_calls of turn {number} are {json_type_name(calls)}, not a list")
    return calls


def _tool_call(number: int, call: Any) -> dict[str, object]:
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
    check_nesting(arguments)
    checked: dict[str, object] = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    if type(call.get("id")) is str:
        checked["id"] = call["id"]
    return checked


def check_nesting(value: Any, left: int = MAX_NESTING) -> None:
    """Reject a value whose brackets are nested deeper than any reader of the record can be trusted to follow."""
    if not left:
        raise Rejection("invalid-json", f"brackets nested more than {MAX_NESTING} deep")
    for below in value.values() if type(value) is dict else value if type(value) is list else ():
        check_nesting(below, left - 1)


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


PROMPT_FIELDS = ("prompt", "question", "instruction")
RESPONSE_FIELDS = ("response", "completion", "answer", "output")
MESSAGES_FIELDS = ("messages", "conversations")
KNOWN = "prompt/response, prompt/completion, question/answer, instruction/input/output, messages, conversations, text"


def parse_fields(row: Fields, fields: dict[str, str]) -> Content:
    """{"messages": [...], "tools"?: [...]} or {"text": ...} from the fields of a row.

    fields: the configuration's own names, as {ours: yours}. Raises Rejection.
    """
    if fields:
        row = _renamed(row, fields)
    prompt_field = next((name for name in PROMPT_FIELDS if name in row), None)
    response_field = next((name for name in RESPONSE_FIELDS if name in row), None)
    if prompt_field is not None and response_field is not None:
        return {"messages": _prompt_response(row, prompt_field, response_field, fields)}
    for name in MESSAGES_FIELDS:
        if name in row:
            return _chat(row, name, fields)
    if "text" in row:
        return {"text": _text(row, "text", fields)}
    if prompt_field is not None:
        raise Rejection(
            "missing-field", f"there is a {_display(prompt_field, fields)}, and no {_display('response', fields)}"
        )
    if response_field is not None:
        raise Rejection(
            "missing-field", f"there is a {_display(response_field, fields)}, and no {_display('prompt', fields)}"
        )
    found = ", ".join(name[:40] for name in list(row)[:8]) or "none"
    raise Rejection("unknown-format", f"the fields are {found}; known formats: {KNOWN}")


def _renamed(row: Fields, fields: dict[str, str]) -> dict[str, object]:
    """The row under our names; a column that happens to bear one of our names gives way."""
    theirs = set(fields.values())
    rest = {name: value for name, value in row.items() if name not in theirs and name not in fields}
    return rest | {our_name: row[their_name] for our_name, their_name in fields.items() if their_name in row}


def _display(name: str, fields: dict[str, str]) -> str:
    return f"`{fields.get(name, name)}`"


def _text(row: Fields, name: str, fields: dict[str, str]) -> str:
    value = row[name]
    if type(value) is not str:
        raise Rejection("wrong-type", f"{_display(name, fields)} is {json_type_name(value)}, not text")
    if is_blank(value):
        raise Rejection("empty", f"{_display(name, fields)} holds nothing that can be seen")
    return value


def _prompt_response(row: Fields, prompt_field: str, response_field: str, fields: dict[str, str]) -> list[Message]:
    """One prompt and one response; a system text and an input are optional, and may be empty or null."""
    prompt = _text(row, prompt_field, fields)
    response = _text(row, response_field, fields)
    if prompt_field == "instruction":
        further = _optional(row, "input", fields)
        if further:
            prompt = f"{prompt}\n\n{further}"
    messages: list[Message] = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    system = _optional(row, "system", fields)
    return [{"role": "system", "content": system}, *messages] if system else messages


def _optional(row: Fields, name: str, fields: dict[str, str]) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if type(value) is not str:
        raise Rejection("wrong-type", f"{_display(name, fields)} is {json_type_name(value)}, not text")
    return "" if is_blank(value) else value


def _chat(row: Fields, name: str, fields: dict[str, str]) -> Content:
    turns = row[name]
    if type(turns) is not list:
        raise Rejection("wrong-type", f"{_display(name, fields)} is {json_type_name(turns)}, not a list of turns")
    if name == "conversations":
        turns = from_sharegpt(turns)
    content: Content = {"messages": validate_messages(turns, _optional(row, "system", fields))}
    tools = row.get("tools")
    if tools is not None and tools != []:
        if type(tools) is not list or not all(type(tool) is dict for tool in tools):
            raise Rejection("wrong-type", f"`tools` is {json_type_name(tools)}, not a list of tool descriptions")
        check_nesting(tools)
        content["tools"] = tools
    return content
