"""The validation rows that base and pilot are compared on: which are scored, and their responses after other prompts.

All rows come from a token store: what precedes a row's first target token is its prompt as the model reads it,
chat template included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from snaketune.engines.interface import LoglikelihoodRequest
from snaketune.tokens.token_store import TokenStore
from snaketune.tokens.virtual_tokens import kept_positions
from snaketune.train.batches import nested_subset

SCORED_ROWS = 128  # validation rows whose log-likelihoods are compared
WORK = 1e12  # weights x tokens of the rows that are scored first: 806 tokens of a model with 1.24 billion weights
FEWEST_ROWS = 24
SAMPLE, SMALLEST_SAMPLE = 16, 8  # rows that are answered where `pilot.sample` says nothing


class Exchange(NamedTuple):
    """The ids of a prompt, and of the response that follows it."""

    prompt: np.ndarray
    response: np.ndarray


@dataclass(frozen=True)
class SwappedPair:
    """A response after its own prompt and after another row's, as requests; num_target_tokens: its tokens."""

    own_prompt: LoglikelihoodRequest
    other_prompt: LoglikelihoodRequest
    num_target_tokens: int


@dataclass(frozen=True)
class Look:
    """Rows that are scored together, and their responses after other rows' prompts."""

    requests: list[LoglikelihoodRequest]
    swaps: list[SwappedPair]
    num_target_tokens: np.ndarray

    @classmethod
    def of(cls, valid: TokenStore, rows: np.ndarray, seed: int) -> Look:
        """Take these rows of a store."""
        requests = [_request(*valid.row(int(row))) for row in rows]
        return cls(requests, swapped_pairs(valid, rows, seed), valid.num_target_tokens[rows])

    def of_base(self, virtual_ids: range) -> list[LoglikelihoodRequest]:
        """The rows as the base reads them, without the virtual tokens of prompt tuning."""
        if not virtual_ids:
            return self.requests
        requests = []
        for ids, loss_mask in self.requests:
            kept = kept_positions(ids, virtual_ids)
            requests.append(LoglikelihoodRequest([ids[i] for i in kept], [loss_mask[i] for i in kept]))
        return requests


def looks(valid: TokenStore, parameters: int, seed: int) -> list[np.ndarray]:
    """The indices of the rows that are scored first, and of those that are scored where the first do not decide."""
    every = nested_subset(valid, SCORED_ROWS, seed)
    count = max(FEWEST_ROWS, int(WORK / parameters / valid.lengths[every].mean()))
    if count >= len(every):
        return [every]
    first = nested_subset(valid, count, seed)
    return [first, np.setdiff1d(every, first)]


def sample_size(wanted: int | None, chosen: list[np.ndarray]) -> int:
    """How many rows are answered: as many as are wanted, and else fewer of a model of which few rows are scored first.

    chosen: the rows of each look.
    """
    if wanted is not None:
        return wanted
    return SAMPLE if len(chosen) == 1 else max(SMALLEST_SAMPLE, min(SAMPLE, len(chosen[0]) // 3))


def split_exchange(store: TokenStore, row: int) -> Exchange | None:
    """Return the ids before a row's first target and that first run of targets; None for plain text."""
    ids, loss_mask = store.row(row)
    starts = np.flatnonzero(loss_mask)
    if len(starts) == 0 or starts[0] <= 1:
        return None
    begin = int(starts[0])
    gaps = np.flatnonzero(~loss_mask[begin:])
    end = begin + int(gaps[0]) if len(gaps) else len(ids)
    return Exchange(ids[:begin], ids[begin:end])


def swapped_pairs(store: TokenStore, rows: np.ndarray, seed: int) -> list[SwappedPair]:
    """Return each row's response with its own prompt and with another's, drawn among those that differ from it."""
    exchanges = [pair for row in rows if (pair := split_exchange(store, int(row))) is not None]
    source = np.random.default_rng(seed)
    found = []
    for prompt, response in exchanges:
        for pick in source.permutation(len(exchanges)):
            other = exchanges[pick]
            if not np.array_equal(other.prompt, prompt) and not np.array_equal(other.response, response):
                swapped = _joined(other.prompt, response)
                found.append(SwappedPair(_joined(prompt, response), swapped, len(response)))
                break
    return found


def _joined(prompt: np.ndarray, response: np.ndarray) -> LoglikelihoodRequest:
    return _request(np.concatenate([prompt, response]), np.repeat([False, True], [len(prompt), len(response)]))


def _request(ids: np.ndarray, loss_mask: np.ndarray) -> LoglikelihoodRequest:
    return LoglikelihoodRequest(ids.tolist(), loss_mask.tolist())
