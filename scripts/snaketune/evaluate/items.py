"""Which test rows are put to a model, and what is asked of it in each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snaketune.model.rendering import Renderer


@dataclass(frozen=True)
class Item:
    """One answer to give and score, or, where `prompt` is None, one plain text to score.

    id: of the prediction; shown: the question as a person reads it; ids and targets: the reference and what comes
    before it, as trained; prompt: the ids after which the model answers.
    """

    id: str
    row: str
    shown: str
    reference: str
    category: str | None
    ids: list[int]
    targets: list[bool]
    prompt: list[int] | None


def chosen(records: Sequence[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """At most `count` rows, drawn without replacement, in the order of the file."""
    if len(records) <= count:
        return list(records)
    return [records[i] for i in sorted(random.Random(seed).sample(range(len(records)), count))]


def items(record: dict[str, Any], renderer: Renderer) -> list[Item]:
    """What is asked of a model in one row: the answer of its last assistant turn, or the row's text."""
    row = str(record["id"])
    category = record.get("category")
    if "text" in record:
        rendered = renderer.text(record["text"])
        return [Item(row, row, "", record["text"], category, rendered.ids, rendered.trained, None)]
    messages, tools = record["messages"], record.get("tools")
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    before, answer = messages[:last], messages[last]
    rendered = renderer.conversation(messages[: last + 1], tools)
    return [
        Item(
            row,
            row,
            shown(before),
            answer.get("content") or "",
            category,
            rendered.ids,
            _last_turn(rendered.trained, before, renderer, tools),
            renderer.prompt(before, tools),
        )
    ]


def shown(messages: Sequence[dict[str, Any]]) -> str:
    """A conversation as a person reads it: the question alone, or each turn under its role's name."""
    spoken = [message for message in messages if message["role"] != "system"]
    if len(spoken) == 1:
        return spoken[0].get("content") or ""
    return "\n".join(f"{message['role']}: {message.get('content') or ''}" for message in spoken)


def _last_turn(
    trained: list[bool], before: Sequence[dict[str, Any]], renderer: Renderer, tools: list[Any] | None
) -> list[bool]:
    """The mask without the targets of earlier assistant turns."""
    if not any(message["role"] == "assistant" for message in before):
        return trained
    earlier = sum(renderer.conversation(before, tools).trained)
    kept = list(trained)
    for place in [i for i, one in enumerate(trained) if one][:earlier]:
        kept[place] = False
    return kept
