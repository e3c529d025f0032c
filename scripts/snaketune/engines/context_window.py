"""Rows and prompts that do not fit into the model's context, and how they are made to; and what prompts share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from snaketune.files import read_json

DEFAULT_CONTEXT = 2048
WORTH_SHARING = 16  # tokens; computing a shorter common beginning once saves less than its bookkeeping costs


def context_of(folder: str | Path) -> int:
    """How many tokens a model can attend to, by its config.json."""
    config = read_json(Path(folder) / "config.json")
    for section in (config, config.get("text_config") or {}):
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            if isinstance(section.get(name), int):
                return section[name]
    return DEFAULT_CONTEXT


def pieces(ids: Sequence[int], targets: Sequence[bool], context: int) -> Iterator[tuple[list[int], list[bool]]]:
    """A row in pieces of at most `context` tokens, each target in exactly one of them.

    A piece after the first begins with the row's first token, as trained models expect, and overlaps the one before
    by half a context, so that every target has at least that much before it.
    """
    if len(ids) <= context:
        yield list(ids), list(targets)
        return
    step = max(1, context // 2)
    scored = 0
    start = 0
    while scored < len(ids):
        end = min(len(ids), start + context - (1 if start else 0))
        head = [ids[0]] if start else []
        mask = [False] * len(head) + [bool(targets[i]) and i >= scored for i in range(start, end)]
        yield head + list(ids[start:end]), mask
        scored = end
        start = max(1, end - step)


def fitted(prompt: Sequence[int], context: int, max_new_tokens: int) -> tuple[list[int], int, int]:
    """A prompt cut on the left so that an answer fits: (its ids, the most new tokens, how many ids were cut off).

    An answer gets up to `max_new_tokens`, and a quarter of the context at the least where that is fewer; the first
    token stays.
    """
    room = min(max_new_tokens, max(1, context // 4))
    excess = len(prompt) - (context - room)
    ids = list(prompt) if excess <= 0 else [prompt[0], *prompt[excess + 1 :]]
    return ids, min(max_new_tokens, context - len(ids)), max(0, excess)


def shared_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """What all prompts begin with, short of any prompt's last token; empty where sharing would not pay."""
    if len(prompts) < 2:
        return []
    first, last = min(map(list, prompts)), max(map(list, prompts))  # what these two share, all between them share
    both = zip(first, last, strict=False)
    length = next((i for i, (one, other) in enumerate(both) if one != other), min(len(first), len(last)))
    length = min(length, min(len(prompt) for prompt in prompts) - 1)
    return first[:length] if length >= WORTH_SHARING else []
