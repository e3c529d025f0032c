"""From the fields of a row to a record, a conversation or a text, in every format that people have; or a rejection."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from snaketune.config.sections import FieldOfRow, Section, SourceConfig
from snaketune.contracts.data import Content, Message
from snaketune.data.conversations import PLAIN, Dialect, tool_descriptions
from snaketune.data.deduplication import first_control_char, is_blank
from snaketune.data.readers.raw_row import Rejection, json_type_name

Fields = Mapping[str, object]  # a row as it was parsed: its own names, any JSON values

PROMPT_FIELDS = ("prompt", "question", "instruction")
RESPONSE_FIELDS = ("response", "completion", "answer", "output")
MESSAGES_FIELDS = ("messages", "conversations")
KNOWN = (
    "prompt/response, prompt/completion, question/answer, instruction/input/output, messages, conversations, "
    "segments, text"
)
PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
SQUAD_PROMPT = "{context}\n\n{question}"


@dataclass(frozen=True)
class Layout:
    """How the rows of one source are read. fields: {ours: theirs}; template: of the prompt, with {theirs} in it."""

    fields: dict[str, str] = field(default_factory=dict)
    template: str | None = None
    dialect: Dialect = PLAIN
    only_last: bool = False

    @classmethod
    def of(cls, source: SourceConfig) -> Layout:
        """Return the layout that a source's settings describe."""
        template = source.template
        if source.format == "parallel":  # whose reader has put it around each line
            template = None
        elif source.format == "squad":
            template = template or SQUAD_PROMPT
        return cls(source.fields, template, Dialect(source.turn_fields, source.roles), source.train_turns == "last")

    def shown(self, name: str) -> str:
        """Return what a person calls a field of ours."""
        return f"`{self.fields.get(name, name)}`"


def parse_fields(row: Fields, layout: Layout) -> Content:
    """Return {"messages": [...], "tools"?: [...]} or {"text": ..., "segments"?} of a row. Raises Rejection."""
    given = _renamed(row, layout.fields) if layout.fields else row
    prompt_field = next((name for name in PROMPT_FIELDS if name in given), None)
    response_field = next((name for name in RESPONSE_FIELDS if name in given), None)
    if {"messages", "response"} <= layout.fields.keys() and "messages" in given and "response" in given:
        return _chat(given, "messages", layout, _turns_of(given["response"]))
    if layout.template and response_field is not None:
        return _exchange(given, _filled(layout.template, row), response_field, layout)
    if prompt_field is not None and response_field is not None:
        return _exchange(given, _prompt(given, prompt_field, layout), response_field, layout)
    for name in MESSAGES_FIELDS:
        if name in given:
            return _chat(given, name, layout)
    if type(given.get("segments")) is list:
        return _segments(given["segments"])
    if "text" in given:
        return {"text": _text(given, "text", layout)}
    raise _unknown(row, prompt_field, response_field, layout)


def _unknown(row: Fields, prompt_field: str | None, response_field: str | None, layout: Layout) -> Rejection:
    if prompt_field is not None:
        there, missing = prompt_field, "response"
    elif response_field is not None:
        there, missing = response_field, "prompt"
    else:
        found = ", ".join(name[:40] for name in list(row)[:8]) or "none"
        return Rejection("unknown-format", f"the fields are {found}; known formats: {KNOWN}")
    return Rejection("missing-field", f"there is a {layout.shown(there)}, and no {layout.shown(missing)}")


def _renamed(row: Fields, fields: dict[str, str]) -> dict[str, object]:
    """Return the row under our names; a column that happens to bear one of our names gives way."""
    theirs = set(fields.values())
    rest = {name: value for name, value in row.items() if name not in theirs and name not in fields}
    return rest | {our_name: row[their_name] for our_name, their_name in fields.items() if their_name in row}


def _text(row: Fields, name: str, layout: Layout) -> str:
    value = row[name]
    if type(value) is not str:
        raise Rejection("wrong-type", f"{layout.shown(name)} is {json_type_name(value)}, not text")
    if is_blank(value):
        raise Rejection("empty", f"{layout.shown(name)} holds nothing that can be seen")
    return value


def _prompt(row: Fields, name: str, layout: Layout) -> str | list[Any]:
    """Return a prompt; an instruction is followed by its input. It may be the turns before the answer."""
    if type(row[name]) is list:
        return row[name]  # type: ignore[return-value]
    prompt = _text(row, name, layout)
    further = _optional(row, "input", layout) if name == "instruction" else ""
    return f"{prompt}\n\n{further}" if further else prompt


def _filled(template: str, row: Fields) -> str:
    """Return a template with the row's own fields in it; the words before an empty field are left out with it.

    {name?} stands for a field that a row may lack.
    """
    pieces = PLACEHOLDER.split(template)
    text, was_empty = "", False
    for words, name in zip(pieces[0::2], [*pieces[1::2], None], strict=True):
        if was_empty and not text:
            words = words.lstrip()
        if name is None:
            text += words
            continue
        name, is_optional = name.removesuffix("?"), name.endswith("?")
        if name not in row and not is_optional:
            raise Rejection("missing-field", f"the template names `{name[:40]}`, which the row does not have")
        value = row.get(name)
        if type(value) in (int, float):
            value = str(value)
        if value is not None and type(value) is not str:
            raise Rejection("wrong-type", f"`{name}` is {json_type_name(value)}, not text")
        was_empty = value is None or is_blank(value)
        if not was_empty:
            text += f"{words}{value}"
    if is_blank(text):
        raise Rejection("empty", "every field that the template names is empty")
    return text


def _exchange(row: Fields, prompt: str | list[Any], response_field: str, layout: Layout) -> Content:
    """Return one prompt and its response, after the exchanges of `history` if there are any."""
    response = row[response_field]
    if type(response) in (list, dict):
        answer = _turns_of(response)
        whole = len(answer) > 1 and type(prompt) is str  # as in rows of preferences: the prompt stands in it too
        turns: list[Any] = answer if whole else [*_turns_of(prompt, "user"), *answer]
        return _with_tools(row, layout, turns)
    answered: list[Any] = [
        *_turns_of(prompt, "user"),
        {"role": "assistant", "content": _text(row, response_field, layout)},
    ]
    history = _history(row, layout)
    if history or type(prompt) is list or "tools" in row:
        return _with_tools(row, layout, [*history, *answered])
    system = _optional(row, "system", layout)
    messages: list[Message] = [{"role": "system", "content": system}, *answered] if system else answered
    return {"messages": messages}


def _turns_of(value: object, role: str = "assistant") -> list[Any]:
    """Return an answer or a prompt as turns: it may be text, one turn, or a list of them."""
    if type(value) is str:
        return [{"role": role, "content": value}]
    return value if type(value) is list else [value]


def _history(row: Fields, layout: Layout) -> list[Any]:
    """Return earlier exchanges, pairs of a prompt and a response; a field of that name that is none is passed over."""
    history = row.get("history")
    if type(history) is list and all(_is_exchange(pair) for pair in history):
        return [
            {"role": role, "content": text}
            for pair in history
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    if history and "history" in layout.fields:
        raise Rejection("wrong-type", f"{layout.shown('history')} is not a list of pairs of a prompt and a response")
    return []


def _is_exchange(pair: object) -> bool:
    return type(pair) is list and len(pair) == 2 and all(type(one) is str for one in pair)


def _optional(row: Fields, name: str, layout: Layout) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if type(value) is not str:
        raise Rejection("wrong-type", f"{layout.shown(name)} is {json_type_name(value)}, not text")
    return "" if is_blank(value) else value


def _chat(row: Fields, name: str, layout: Layout, further: Sequence[Any] = ()) -> Content:
    turns = row[name]
    if type(turns) is not list:
        raise Rejection("wrong-type", f"{layout.shown(name)} is {json_type_name(turns)}, not a list of turns")
    return _with_tools(row, layout, [*turns, *further])


def _with_tools(row: Fields, layout: Layout, turns: Sequence[Any]) -> Content:
    """Return a conversation with the system text and the tools that stand beside it."""
    system = _optional(row, "system", layout)
    content: Content = {"messages": layout.dialect.messages(turns, system, only_last=layout.only_last)}
    if tools := tool_descriptions(row.get("tools", row.get("functions"))):
        content["tools"] = tools
    return content


def _segments(segments: object) -> Content:
    """Return a text in pieces, each trained or not, as Axolotl's input_output has them."""
    text, spans = "", []
    for number, segment in enumerate(segments if type(segments) is list else [], 1):
        if type(segment) is not dict or type(segment.get("text")) is not str or "label" not in segment:
            raise Rejection("wrong-type", f"segment {number} is no object with label and text")
        if segment["text"]:
            spans.append([len(text), len(text) + len(segment["text"]), int(bool(segment["label"]))])
        text += segment["text"]
    if is_blank(text):
        raise Rejection("empty", "the segments hold nothing that can be seen")
    if not any(is_trained for _, _, is_trained in spans):
        raise Rejection("no-assistant", "no segment is labelled true, so there is nothing to learn")
    return {"text": text, "segments": spans}


class ValidationConfig(Section, frozen=True, kw_only=True):
    """The part of `data` that decides which rows are kept."""

    sources: list[SourceConfig]
    system: str | None
    min_characters: int
    max_characters: int
    max_rejected: float
    near_duplicates: float | bool
    shingles: Literal["auto", "words", "characters"]


class RecordBuilder:
    """Builds records from the rows of one source, by that source's settings."""

    def __init__(self, source: SourceConfig, config: ValidationConfig) -> None:
        self.layout = Layout.of(source)
        self.group, self.category = source.group, source.category
        self.system = config.system or ""
        self.weight = source.weight
        self.min_characters = config.min_characters
        self.max_characters = config.max_characters

    def record(self, row: Fields, has_no_control_chars: bool = False) -> Content:
        """Build the record of a row. has_no_control_chars: the caller knows that there are none. Raises Rejection."""
        record = parse_fields(row, self.layout)
        if self.system and "messages" in record and record["messages"][0]["role"] != "system":
            record["messages"].insert(0, {"role": "system", "content": self.system})
        if not has_no_control_chars:
            for text in iter_texts(record):
                if found := first_control_char(text):
                    raise Rejection("control-characters", f"the control character {found} of {text[:20]!r}...")
        length = len(record["text"]) if "text" in record else sum(len(turn["content"]) for turn in record["messages"])
        if length < self.min_characters:
            raise Rejection("too-short", f"{length} characters; data.min_characters is {self.min_characters}")
        if length > self.max_characters:
            raise Rejection("too-long", f"{length} characters; data.max_characters is {self.max_characters}")
        if self.group is not None and (group := _label("group", self.group, row)):
            record["group"] = group
        if self.category is not None and (category := _label("category", self.category, row)):
            record["category"] = category
        if self.weight != 1:
            record["weight"] = self.weight
        return record


def _label(name: str, label: str | FieldOfRow, row: Fields) -> str:
    """The group or category of a row: the same for all, or from a field of its own; empty if it has none."""
    if isinstance(label, str):
        return label
    value = row.get(label.field)
    if value is None:
        return ""
    if type(value) in (int, float):
        value = str(value)
    if type(value) is not str:
        raise Rejection("wrong-type", f"its {name}, `{label.field}`, is {json_type_name(value)}, not text")
    return value


def with_cluster(line: bytes, cluster: str) -> bytes:
    """Add the cluster ID to a record that is a line of JSON already.

    The line is written before its cluster is known, and decoding and encoding a million lines again costs minutes; the
    closing bracket and the line end are replaced instead. A cluster ID is hexadecimal, so it needs no escaping.
    """
    return line[:-2] + b',"cluster":"' + cluster.encode() + b'"}\n'


def iter_texts(record: Content) -> Iterator[str]:
    """Everything in a record that is read as text."""
    if "text" in record:
        yield record["text"]
    else:
        for message in record["messages"]:
            yield message["content"]
            if "tool_calls" in message:
                yield from _strings(message["tool_calls"])
        yield from _strings(record.get("tools", ()))


def _strings(value: object) -> Iterator[str]:
    """Every string inside a JSON value, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield key
            yield from _strings(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _strings(below)
