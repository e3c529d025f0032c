"""The turns of a conversation, in every dialect that people have, as the messages that a chat template reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from snaketune.contracts.data import Message
from snaketune.data.deduplication import is_blank
from snaketune.data.readers.raw_row import Rejection, json_type_name

Turn = Mapping[str, object]  # as it was parsed: its own names, any JSON values

ROLES = ("system", "user", "assistant", "tool")
TOOL_CALL = "tool_call"  # a turn of the assistant that is nothing but the call of a tool
ROLE_ALIASES = {
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function": "tool",
    "observation": "tool",
    "function_call": TOOL_CALL,
    "developer": "system",
}
MAX_NESTING = 64
ALLOWED_BEFORE = {
    "system": ("the beginning",),
    "user": ("the beginning", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


class Dialect:
    """How turns are written in one source: the names inside a turn, and those of the roles.

    turn_fields: {ours: theirs}; roles: {ours: [theirs]}; what they leave out is told from the turn itself.
    """

    def __init__(self, turn_fields: Mapping[str, str] = {}, roles: Mapping[str, Sequence[str]] = {}) -> None:
        self.role = turn_fields.get("role")
        self.content = turn_fields.get("content")
        self.tool_calls = turn_fields.get("tool_calls", "tool_calls")
        self.weight = turn_fields.get("weight", "weight")
        self.roles = ROLE_ALIASES | {name: ours for ours, names in roles.items() for name in names}

    def messages(self, turns: Sequence[Any], system: str = "", *, only_last: bool = False) -> list[Message]:
        """Return the turns, checked and with only the fields that a chat template reads.

        system: a system text that stands beside the turns; the turns' own goes before it; only_last: no answer but the
        last one is trained. Raises Rejection.
        """
        messages = [self._message(number, turn) for number, turn in enumerate(turns, 1)]
        if not messages:
            raise Rejection("empty", "the conversation has no turn")
        if messages[0]["role"] == "system" and is_blank(messages[0]["content"]):
            del messages[0]
        elif messages[0]["role"] != "system" and system:
            messages.insert(0, {"role": "system", "content": system})
        _number_calls(messages)
        _check_order([message["role"] for message in messages])
        for number, message in enumerate(messages, 1):
            if message["role"] != "tool" and "tool_calls" not in message and is_blank(message["content"]):
                raise Rejection("empty", f"turn {number} ({message['role']}) holds nothing that can be seen")
        _check_trained(messages, only_last)
        return messages

    def _message(self, number: int, turn: Any) -> Message:
        if type(turn) is not dict:
            raise Rejection(
                "wrong-type", f"turn {number} is {json_type_name(turn)}, not an object with role and content"
            )
        role_key, content_key = _key(turn, self.role, "role", "from"), _key(turn, self.content, "content", "value")
        role = self._role(number, turn, role_key)
        if role == TOOL_CALL:
            return self._call_alone(number, turn.get(content_key))
        calls = turn.get(self.tool_calls) or _legacy_call(turn)
        message: Message = {
            "role": role,
            "content": _content(number, role, turn.get(content_key, MISSING), bool(calls)),
        }
        if calls:
            if role != "assistant":
                raise Rejection("bad-roles", f"turn {number} ({role}) calls tools; only the assistant can")
            message["tool_calls"] = _tool_calls(number, calls)
        if role == "tool" and type(turn.get("name")) is str:
            message["name"] = turn["name"]
        if role == "tool" and type(turn.get("tool_call_id")) is str:
            message["tool_call_id"] = turn["tool_call_id"]
        if role == "assistant" and self.weight in turn and not _is_trained(number, turn[self.weight]):
            message["trained"] = False
        return message

    def _role(self, number: int, turn: Turn, key: str) -> str:
        if key not in turn:
            raise Rejection("missing-field", f"turn {number} has no `{key}`")
        role = turn[key]
        if type(role) is not str:
            raise Rejection("wrong-type", f"the role of turn {number} is {json_type_name(role)}, not text")
        known = self.roles.get(role, role)
        if known not in (*ROLES, TOOL_CALL):
            raise Rejection("bad-roles", f'turn {number} has the role "{role[:40]}"; known are {", ".join(ROLES)}')
        return known

    def _call_alone(self, number: int, content: Any) -> Message:
        """Return a turn whose text is nothing but one call of a tool, or a list of them, as JSON."""
        calls = _parsed(number, content, "the call") if type(content) is str else content
        if type(calls) is dict:
            calls = [calls]
        return {"role": "assistant", "content": "", "tool_calls": _tool_calls(number, calls)}


PLAIN = Dialect()
MISSING = object()


def _key(turn: Turn, theirs: str | None, *usual: str) -> str:
    """Return the name under which a part of a turn stands: the one that is configured, or a usual one."""
    names = (*filter(None, (theirs,)), *usual)
    return next((name for name in names if name in turn), names[0])


def _legacy_call(turn: Turn) -> list[Any] | None:
    """Return the one call of a message in OpenAI's older form."""
    call = turn.get("function_call")
    return [call] if type(call) is dict else None


def _content(number: int, role: str, content: Any, has_calls: bool) -> str:
    """Return a turn's text. Null or absent is right where tools are called; a list of text parts is joined."""
    if has_calls and (content is None or content is MISSING):
        return ""
    if content is MISSING:
        raise Rejection("missing-field", f"turn {number} ({role}) has no `content`")
    if type(content) is list and content and all(_is_text_part(part) for part in content):
        return "".join(part["text"] for part in content)
    if role == "tool" and type(content) in (dict, list):  # what a tool gave back, as it is
        check_nesting(content)
        return json.dumps(content, ensure_ascii=False)
    if type(content) is not str:
        raise Rejection("wrong-type", f"the content of turn {number} ({role}) is {json_type_name(content)}, not text")
    return content


def _is_text_part(part: Any) -> bool:
    return type(part) is dict and part.get("type") == "text" and type(part.get("text")) is str


def _is_trained(number: int, weight: Any) -> bool:
    """Tell what OpenAI's `weight` of a message says: 0 and false are not trained."""
    if weight is None or weight in (0, 1):  # true and false are 1 and 0 too
        return weight is None or bool(weight)
    raise Rejection("wrong-type", f"the weight of turn {number} is {str(weight)[:20]}; 0 and 1 are known")


def _number_calls(messages: list[Message]) -> None:
    """Give calls without an id one of nine letters, and the results that follow them: Mistral's templates need it."""
    count, waiting = 0, []
    for message in messages:
        if "tool_calls" in message:
            waiting = message["tool_calls"][:]
            for call in waiting:
                count += 1
                call.setdefault("id", f"call{count:05}")
        elif message["role"] == "tool" and waiting:
            message.setdefault("tool_call_id", waiting.pop(0)["id"])


def _check_trained(messages: list[Message], only_last: bool) -> None:
    """Mark all answers but the last as not trained, where so asked; one must be left."""
    answers = [message for message in messages if message["role"] == "assistant"]
    if only_last:
        for message in answers[:-1]:
            message["trained"] = False
    if not any(message.get("trained", True) for message in answers):
        raise Rejection("no-assistant", "every answer has a weight of 0, so there is nothing to learn")


def _tool_calls(number: int, calls: Any) -> list[Any]:
    if type(calls) is str:
        calls = _parsed(number, calls, "the tool_calls")
    if type(calls) is not list:
        raise Rejection("wrong-type", f"the tool_calls of turn {number} are {json_type_name(calls)}, not a list")
    return [_tool_call(number, call) for call in calls]


def _tool_call(number: int, call: Any) -> dict[str, object]:
    """Return a call in the form chat templates read: arguments as an object, which OpenAI's files hold as JSON text."""
    function = call.get("function", call) if type(call) is dict else None
    if type(function) is not dict or type(function.get("name")) is not str:
        raise Rejection("wrong-type", f"a tool call of turn {number} has no function name")
    arguments = function.get("arguments", function.get("parameters", {}))
    if type(arguments) is str:
        arguments = _parsed(number, arguments, "the arguments of a tool call") if arguments.strip() else {}
    if type(arguments) is not dict:
        raise Rejection("wrong-type", f"the arguments of a tool call of turn {number} are not an object")
    check_nesting(arguments)
    checked: dict[str, object] = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    if type(call.get("id")) is str:
        checked["id"] = call["id"]
    return checked


def _parsed(number: int, text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        verb = "is" if what == "the call" else "are"
        raise Rejection("wrong-type", f"{what} of turn {number} {verb} not JSON") from None


def tool_descriptions(tools: Any) -> list[Any]:
    """Return the tools of a row, each as the function that a chat template expects; they may be JSON text."""
    if type(tools) is str:
        try:
            tools = json.loads(tools) if tools.strip() else []
        except (ValueError, RecursionError):
            raise Rejection("wrong-type", "`tools` is text that is not JSON") from None
    if tools is None:
        return []
    if type(tools) is not list or not all(type(tool) is dict for tool in tools):
        raise Rejection("wrong-type", f"`tools` is {json_type_name(tools)}, not a list of tool descriptions")
    check_nesting(tools)
    return [
        tool if "function" in tool or "name" not in tool else {"type": "function", "function": tool} for tool in tools
    ]


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
