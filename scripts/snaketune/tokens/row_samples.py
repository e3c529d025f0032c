"""Rows that stand for a split: spread evenly over it, each as the model reads it, long ones cut around their answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from snaketune.contracts.data import DataRecord
from snaketune.tokens.chat_template import Rendered

Taken = TypeVar("Taken")


def spread(rows: Sequence[DataRecord], count: int, take: Callable[[DataRecord], Taken | None]) -> list[Taken]:
    """What `take` makes of at most `count` rows, spread evenly; where that is None, the rows after it are tried."""
    parts = min(count, len(rows))
    found = []
    for part in range(parts):
        for row in rows[part * len(rows) // parts : (part + 1) * len(rows) // parts]:
            taken = take(row)
            if taken is not None:
                found.append(taken)
                break
    return found


def cut_around_answer(row: Rendered, max_tokens: int, virtual_ids: range = range(0)) -> Rendered:
    """At most `max_tokens` of a row: its beginning, and what leads to its last target.

    What is left out stands in the middle of the prompt or of the answer. The beginning is the first token, without
    which a model reads the rest otherwise than it was trained, and the virtual tokens of prompt tuning.
    """
    if len(row.ids) <= max_tokens:
        return row
    last_virtual = max((i for i, token in enumerate(row.ids) if token in virtual_ids), default=0)
    head = min(1 + last_virtual, max_tokens // 2)
    end = 1 + max((i for i, is_target in enumerate(row.loss_mask) if is_target), default=0)
    start = max(head, end - (max_tokens - head))
    stop = start + max_tokens - head
    mask = list(row.loss_mask[start:stop])
    if start > head:
        mask[0] = False  # the token before it is not there to predict it from
    return Rendered(row.ids[:head] + row.ids[start:stop], row.loss_mask[:head] + mask)
