"""The requests of the evaluation: one for each answer to generate or reference to score."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from snaketune.config.sections import FewShotConfig
from snaketune.contracts.data import DataRecord, Message
from snaketune.data import sources
from snaketune.data.deduplication import UnionFind, row_keys
from snaketune.data.readers import dispatch
from snaketune.data.readers.raw_row import Rejection
from snaketune.data.records import Layout, parse_fields
from snaketune.errors import DataError, EvaluationError
from snaketune.files import StrPath, read_jsonl
from snaketune.runtime.events import report_warning
from snaketune.tokens.chat_template import Renderer, is_trained

Messages = list[Message]
MAX_FEW_SHOT_SHARE = 1 / 2  # of the context; the rest is for the prompt and the answer


@dataclass(frozen=True)
class EvalRequest:
    """One answer to generate, one reference to score, or both.

    id: the id of the prediction; row: the id of the record it comes from; prompt: as a person reads it;
    reference: the reference answer, None for a prompt without one; ids and loss_mask: the reference and everything
    before it, as in training; prompt_ids: after which the model generates, None for a plain text; cluster: the
    first row of those that this one depends on (see `clusters`), None for a row that stands alone.
    """

    id: str
    row: str
    prompt: str
    reference: str | None
    category: str | None
    ids: list[int]
    loss_mask: list[bool]
    prompt_ids: list[int] | None
    cluster: str | None = None


def sample_rows(records: Sequence[DataRecord], count: int, seed: int) -> list[DataRecord]:
    """At most `count` rows, drawn without replacement, in the order of the file; fewer of them are among more."""
    if len(records) <= count:
        return list(records)
    return [records[i] for i in sorted(random.Random(seed).sample(range(len(records)), len(records))[:count])]


def answerable(records: Sequence[DataRecord], renderer: Renderer) -> list[DataRecord]:
    """The rows that the chat template renders; the others were left out of training too, and a warning counts them."""
    found = [record for record in records if not isinstance(renderer.record_or_reason(record), str)]
    refused = len(records) - len(found)
    if refused:
        report_warning(f"{refused} of {len(records)} rows are not asked: the chat template refuses them")
    return found


def clusters(records: Sequence[DataRecord]) -> dict[str, str]:
    """The cluster of each row that shares its question or its group with another: the id of the cluster's first row.

    Such rows are not independent of each other. A question is what the data stage takes for one: the text of all turns
    before the last answer, whatever its capitals and punctuation.
    """
    found = UnionFind(len(records))
    first: dict[tuple[str, object], int] = {}
    for i, record in enumerate(records):
        shared = row_keys(record)
        keys = [("question", shared.prompt_hash), ("opening", shared.opening_hash), ("group", record.get("group"))]
        for kind, key in keys:
            if key:
                found.join(i, first.setdefault((kind, key), i))
    members = found.members()
    return {str(records[i]["id"]): str(records[root]["id"]) for root, rows in members.items() for i in rows}


def row_requests(record: DataRecord, renderer: Renderer, prefix: Messages, turns: str) -> Iterator[EvalRequest]:
    """The requests of one row: for its last trained assistant turn or, with `turns` = all, for each of them.

    Each is rendered as the last turn of the conversation up to it, as the model would be prompted; earlier turns are
    the record's own. prefix: messages put before every conversation (see `with_prefix`).
    """
    row, category = str(record["id"]), record.get("category")
    if "text" in record:
        rendered = renderer.record(record)
        yield EvalRequest(row, row, "", record["text"], category, rendered.ids, rendered.loss_mask, None)
        return
    messages, tools = record["messages"], record.get("tools")
    assistant_turns = [i for i, message in enumerate(messages) if is_trained(message)]
    for turn in assistant_turns if turns == "all" else assistant_turns[-1:]:
        before = with_prefix(prefix, messages[:turn])
        rendered = renderer.conversation([*before, messages[turn]], tools, only_last=True)
        yield EvalRequest(
            id=row if turn == assistant_turns[-1] else f"{row}#{turn}",
            row=row,
            prompt=conversation_text(messages[:turn]),
            reference=messages[turn].get("content") or "",
            category=category,
            ids=rendered.ids,
            loss_mask=rendered.loss_mask,
            prompt_ids=renderer.prompt_ids(before, tools),
        )


def free_prompt(number: int, text: str, renderer: Renderer, prefix: Messages) -> EvalRequest:
    """The request of a prompt of the configuration, which has no reference answer."""
    name = f"prompt-{number}"
    prompt_ids = renderer.prompt_ids(with_prefix(prefix, [{"role": "user", "content": text}]))
    return EvalRequest(name, name, text, None, None, [], [], prompt_ids)


def with_prefix(prefix: Messages, messages: Messages) -> Messages:
    """A conversation after the prefix; the row's own system message goes first, unless the prefix has one."""
    if not prefix:
        return messages
    system = [message for message in messages[:1] if message["role"] == "system"]
    return ([] if prefix[0]["role"] == "system" else system) + prefix + messages[len(system) :]


def conversation_text(messages: Messages) -> str:
    """A conversation as a person reads it: a single prompt alone, several turns each after its role's name."""
    turns = [message for message in messages if message["role"] != "system"]
    if len(turns) == 1:
        return turns[0].get("content") or ""
    return "\n".join(f"{message['role']}: {message.get('content') or ''}" for message in turns)


def few_shot_messages(
    config: FewShotConfig, train: StrPath | None, renderer: Renderer, context: int, seed: int
) -> Messages:
    """The system message and the worked examples that precede each prompt of the variant `prompted`.

    There are fewer examples where more would not fit into MAX_FEW_SHOT_SHARE of the context.
    """
    if not config.system and not config.num_examples:
        raise EvaluationError(
            "the prompted base has neither a system prompt nor an example",
            where="evaluate.few_shot",
            why="It would be the base once more",
            fix="Set evaluate.few_shot.system, or num_examples above 0, or leave `prompted` out of evaluate.models",
        )
    system: Messages = [{"role": "system", "content": config.system}] if config.system else []
    examples = sample_exchanges(read_jsonl(train), config.num_examples, seed) if train is not None else []
    probe: Messages = [{"role": "user", "content": "?"}]
    prefix, count = system, 0
    for count in range(len(examples), 0, -1):
        prefix = system + [message for exchange in examples[:count] for message in exchange]
        if len(renderer.prompt_ids(prefix + probe)) <= MAX_FEW_SHOT_SHARE * context:
            break
    else:
        prefix, count = system, 0
    if count < config.num_examples:
        why = (
            f"no more fit into half a context of {context} tokens"
            if examples
            else "no training row is a single exchange"
        )
        print(f"snaketune: the prompted base gets {count} of {config.num_examples} examples: {why}", file=sys.stderr)
    return prefix


def sample_exchanges(records: Iterable[DataRecord], count: int, seed: int) -> list[Messages]:
    """Up to `count` prompts with their answers from the training rows, drawn by seed: single exchanges only."""
    exchanges = []
    for record in records:
        turns = [message for message in record.get("messages", []) if message["role"] != "system"]
        if [message["role"] for message in turns] == ["user", "assistant"] and "tools" not in record:
            exchanges.append(turns)
    return random.Random(seed).sample(exchanges, min(count, len(exchanges)))


def general_records(path: StrPath) -> list[DataRecord]:
    """The rows of the general set, in any row format of the data; DataError names the line of one that is unusable."""
    name = str(path)
    found: list[DataRecord] = []
    for row in dispatch.rows(name, sources.file_format(name, "auto")):
        try:
            if isinstance(row.parsed, Rejection):
                raise row.parsed
            content = parse_fields(row.parsed, Layout())
        except Rejection as rejection:
            raise DataError(
                f"this row of the general set cannot be used: {rejection}",
                where=f"{name}:{row.line}",
                fix="Correct it or take it out, or set evaluate.forgetting.rows to another file, or to null",
            ) from None
        category = row.parsed.get("category")
        record = cast(DataRecord, {"id": f"general-{row.line}", **content})
        if category:
            record["category"] = str(category)
        found.append(record)
    return found


def as_plain_text(records: list[DataRecord]) -> list[DataRecord]:
    """The rows for a base without a chat template, which cannot be prompted: their turns, one on each line."""
    texts = []
    for record in records:
        text = record["text"] if "text" in record else "\n".join(turn["content"] or "" for turn in record["messages"])
        kept = DataRecord(id=record["id"], text=text)
        if "category" in record:
            kept["category"] = record["category"]
        texts.append(kept)
    return texts
