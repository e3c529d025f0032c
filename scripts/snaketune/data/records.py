"""The verdict on one row: the record that it becomes, or the reason why it cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from snaketune.data.normalization import controls
from snaketune.data.readers.dispatch import kind_of
from snaketune.data.rejection import Rejection
from snaketune.data.row_formats import content_of

LABELS = ("group", "category")


class Judge:
    """Turns rows of one source into records, by that source's settings.

    source: an entry of data.sources; data: the data section (system, min_characters, max_characters).
    """

    def __init__(self, source: dict[str, Any], data: dict[str, Any]) -> None:
        self.fields: dict[str, str] = source.get("fields") or {}
        self.labels = {name: source[name] for name in LABELS if source.get(name) is not None}
        self.system: str = data["system"] or ""
        self.weight: float = source.get("weight", 1.0)
        self.shortest: int = data["min_characters"]
        self.longest: int = data["max_characters"]

    def record(self, row: dict[str, Any], clean: bool = False) -> dict[str, Any]:
        """{"messages" | "text", "tools"?, "group"?, "category"?, "weight"?} for a row's fields. Raises Rejection.

        clean: the caller knows that the row holds no control character.
        """
        record = content_of(row, self.fields)
        if self.system and "messages" in record and record["messages"][0]["role"] != "system":
            record["messages"].insert(0, {"role": "system", "content": self.system})
        if not clean:
            for text in texts(record):
                if found := controls(text):
                    raise Rejection("control-characters", f"the control character {found} of {text[:20]!r}...")
        length = len(record["text"]) if "text" in record else sum(len(turn["content"]) for turn in record["messages"])
        if length < self.shortest:
            raise Rejection("too-short", f"{length} characters; data.min_characters is {self.shortest}")
        if length > self.longest:
            raise Rejection("too-long", f"{length} characters; data.max_characters is {self.longest}")
        for name, label in self.labels.items():
            value = row.get(label["field"]) if type(label) is dict else label
            if type(value) in (int, float):
                value = str(value)
            if value is not None and type(value) is not str:
                raise Rejection("wrong-type", f"its {name}, `{label['field']}`, is {kind_of(value)}, not text")
            if value:
                record[name] = value
        if self.weight != 1:
            record["weight"] = self.weight
        return record


def texts(record: dict[str, Any]) -> Iterator[str]:
    """Everything in a record that is read as text."""
    if "text" in record:
        yield record["text"]
    else:
        for message in record["messages"]:
            yield message["content"]
            if "tool_calls" in message:
                yield from _strings(message["tool_calls"])
        yield from _strings(record.get("tools", ()))


def _strings(value: Any) -> Iterator[str]:
    """Every text inside of a JSON value, names of fields included."""
    if type(value) is str:
        yield value
    elif type(value) is dict:
        for key, below in value.items():
            yield key
            yield from _strings(below)
    elif type(value) in (list, tuple):
        for below in value:
            yield from _strings(below)
