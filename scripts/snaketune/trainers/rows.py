"""The token ids of a run as files that every trainer can read: JSON Lines with `input_ids` and `labels`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snaketune import files
from snaketune.tokens.token_store import TokenStore

IGNORED = -100
"""The label of a token without loss."""


def write_rows(path: Path, store: TokenStore, rows: np.ndarray, *, train_on_prompts: bool = False) -> None:
    """Write these rows of a store, in this order."""
    with files.writing_jsonl(path) as out:
        for row in rows:
            ids, trained = store.row(int(row))
            labels = ids if train_on_prompts else np.where(trained, ids, IGNORED)
            out.write(files.dumps({"input_ids": ids.tolist(), "labels": labels.tolist()}).encode() + b"\n")


def count_several_answers(store: TokenStore, rows: np.ndarray) -> int:
    """How many of these rows have more than one stretch of trained tokens."""
    return sum(_stretches(store.row(int(row))[1]) > 1 for row in rows)


def _stretches(trained: np.ndarray) -> int:
    return int(np.count_nonzero(np.diff(trained.astype(np.int8), prepend=0) == 1))
