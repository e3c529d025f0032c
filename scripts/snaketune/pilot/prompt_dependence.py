"""Rows for the question whether answers belong to their questions, and prompts for a scored sample.

Both come from a token store alone: what stands before a row's first trained token is its question as the model reads
it, template included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from snaketune.tokens.token_store import TokenStore

Row = tuple[np.ndarray, np.ndarray]  # ids and the mask of targets


@dataclass(frozen=True)
class Exchange:
    """An answer after its own question (`own`) and after another row's (`other`)."""

    own: Row
    other: Row
    targets: int


def question_and_answer(store: TokenStore, row: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The ids before a row's first trained token, and that first run of trained tokens; None for plain text."""
    ids, trained = store.row(row)
    starts = np.flatnonzero(trained)
    if len(starts) == 0 or starts[0] <= 1:
        return None
    begin = int(starts[0])
    gaps = np.flatnonzero(~trained[begin:])
    end = begin + int(gaps[0]) if len(gaps) else len(ids)
    return ids[:begin], ids[begin:end]


def exchanges(store: TokenStore, rows: np.ndarray, seed: int) -> list[Exchange]:
    """Each row's answer with its own question and with another's, drawn at random among those that differ from it."""
    pairs = [pair for row in rows if (pair := question_and_answer(store, int(row))) is not None]
    source = np.random.default_rng(seed)
    found = []
    for question, answer in pairs:
        for pick in source.permutation(len(pairs)):
            stranger, theirs = pairs[pick]
            if not np.array_equal(stranger, question) and not np.array_equal(theirs, answer):
                found.append(Exchange(_row(question, answer), _row(stranger, answer), len(answer)))
                break
    return found


def _row(question: np.ndarray, answer: np.ndarray) -> Row:
    return np.concatenate([question, answer]), np.repeat([False, True], [len(question), len(answer)])
