"""Which rows are put to a model, and what is asked of it in each."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from snaketune.tokens.chat_template import Renderer

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Item:
    """One answer to give or to score, or both.

    row: the id of the record it comes from; shown: the question as a person reads it; reference: the answer wanted,
    if there is one; ids and targets: that answer and everything before it, as trained; prompt: the ids after which
    the model answers, None for a plain text.
    """

    id: str
    row: str
    shown: str
    reference: str | None
    category: str | None
    ids: list[int]
    targets: list[bool]
    prompt: list[int] | None


def chosen(records: Sequence[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """At most `count` rows, drawn without replacement, in the order of the file."""
    if len(records) <= count:
        return list(records)
    return [records[i] for i in sorted(random.Random(seed).sample(range(len(records)), count))]


def items(record: dict[str, Any], renderer: Renderer, lead: Messages, turns: str) -> Iterator[Item]:
    """What is asked in one row: the answer of its last assistant turn, or, with `turns` = all, of each of them.

    Each is rendered as the last one of the conversation up to it, as the model would be asked; earlier turns are the
    record's own. lead: messages put before every conversation (see `led`).
    """
    row, category = str(record["id"]), record.get("category")
    if "text" in record:
        rendered = renderer.text(record["text"])
        yield Item(row, row, "", record["text"], category, rendered.ids, rendered.trained, None)
        return
    messages, tools = record["messages"], record.get("tools")
    answered = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    for turn in answered if turns == "all" else answered[-1:]:
        before = led(lead, messages[:turn])
        rendered = renderer.conversation([*before, messages[turn]], tools, only_last=True)
        yield Item(
            id=row if turn == answered[-1] else f"{row}#{turn}",
            row=row,
            shown=shown(messages[:turn]),
            reference=messages[turn].get("content") or "",
            category=category,
            ids=rendered.ids,
            targets=rendered.trained,
            prompt=renderer.prompt(before, tools),
        )


def question(number: int, text: str, renderer: Renderer, lead: Messages) -> Item:
    """A question without a reference answer."""
    name = f"prompt-{number}"
    return Item(name, name, text, None, None, [], [], renderer.prompt(led(lead, [{"role": "user", "content": text}])))


def led(lead: Messages, messages: Messages) -> Messages:
    """A conversation after the lead; the row's own system text goes first, unless the lead has one."""
    if not lead:
        return messages
    system = [message for message in messages[:1] if message["role"] == "system"]
    return ([] if lead[0]["role"] == "system" else system) + lead + messages[len(system) :]


def shown(messages: Messages) -> str:
    """A conversation as a person reads it: the question alone, or each turn under its role's name."""
    spoken = [message for message in messages if message["role"] != "system"]
    if len(spoken) == 1:
        return spoken[0].get("content") or ""
    return "\n".join(f"{message['role']}: {message.get('content') or ''}" for message in spoken)


def examples(records: Iterable[dict[str, Any]], count: int, seed: int) -> list[Messages]:
    """Up to `count` questions with their answers from the training rows, drawn by seed: single exchanges only."""
    single = []
    for record in records:
        spoken = [message for message in record.get("messages", []) if message["role"] != "system"]
        if [message["role"] for message in spoken] == ["user", "assistant"] and "tools" not in record:
            single.append(spoken)
    return random.Random(seed).sample(single, min(count, len(single)))
