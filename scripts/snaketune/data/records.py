"""Builds a record from a row's fields, or rejects the row."""

from __future__ import annotations

from collections.abc import Iterator

from snaketune.config.sections import FieldOfRow, SourceConfig, ValidationConfig
from snaketune.contracts.data import Content
from snaketune.data.deduplication import first_control_char
from snaketune.data.readers.raw_row import Rejection, json_type_name
from snaketune.data.row_formats import Fields, Layout, parse_fields


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
