"""Which rows make which update, and how they are cut into micro-batches: a pure function of lengths, weights and seed.

Every row is visited exactly as often as its weight and the number of epochs say. Visits are shuffled, sorted by length
within a window, and dealt out again in small runs of neighbours, so that a micro-batch pads little while an update
still mixes lengths. An update's rows depend on rows per update alone, never on how they are cut into micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from snaketune.errors import TrainingError
from snaketune.tokens.token_store import TokenStore

WINDOW = 1024  # visits that are sorted by length together; more pads less, and mixes the rows less freely
RUN = 4  # neighbours in length that stay together


class Visits:
    """The order in which rows are visited, and the updates it is cut into.

    lengths (tokens) and weights (visits per epoch) have one entry a row. Give `epochs` (any positive number; the last
    one may be a part) or `updates`. The order of an epoch is made when it is first asked for, so that a resumed run
    starts anywhere at once.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        weights: np.ndarray,
        *,
        rows_per_update: int,
        seed: int,
        epochs: float | None = None,
        updates: int | None = None,
    ) -> None:
        if len(lengths) == 0 or weights.sum() <= 0:
            raise TrainingError(
                "there is no row to train on",
                where="data.sources",
                why="All rows were left out: rejected, too long, or of weight 0",
                fix="Look at the run's data/report.json, raise data.max_length, or add rows",
            )
        self._lengths, self._weights = lengths, weights
        self._rows_per_update, self._seed = rows_per_update, seed
        self._phases = self._stratified_phases()
        self._horizon = math.inf if updates else float(epochs or 1)
        self.total = updates * rows_per_update if updates else int(self._times_until(self._horizon).sum())
        if self.total == 0:
            raise TrainingError(
                "no row would be seen even once",
                where="train.epochs",
                why="epochs times the weights of the sources stays below one",
                fix="Raise train.epochs or the sources' weights",
            )
        self.updates = -(-self.total // rows_per_update)
        self._epoch, self._start, self._order = -1, 0, np.empty(0, np.int64)

    def rows(self, update: int) -> np.ndarray:
        """The row numbers of an update (1 is the first); the last update of a run may have fewer than the others."""
        first = (update - 1) * self._rows_per_update
        last = min(first + self._rows_per_update, self.total)
        parts = []
        while first < last:
            self._seek(first)
            part = self._order[first - self._start : last - self._start]
            parts.append(part)
            first += len(part)
        return np.concatenate(parts)

    def epoch(self, update: int) -> float:
        """How many epochs are done once this update is."""
        done = min(update * self._rows_per_update, self.total)
        if done == 0:
            return 0.0
        self._seek(done - 1)
        share = (done - self._start) / len(self._order)
        return self._epoch + share * (min(self._epoch + 1, self._horizon) - self._epoch)

    def times(self, update: int) -> np.ndarray:
        """How often each row has been visited after this update."""
        done = min(update * self._rows_per_update, self.total)
        if done == 0:
            return np.zeros(len(self._lengths), np.int64)
        self._seek(done - 1)
        seen = self._times_until(self._epoch)
        return seen + np.bincount(self._order[: done - self._start], minlength=len(seen))

    def _stratified_phases(self) -> np.ndarray:
        """A row of weight 0.5 comes in every other epoch; phases spread the rows of a weight evenly over epochs."""
        random = np.random.default_rng([self._seed, 0])
        phases = np.empty(len(self._weights))
        for weight in np.unique(self._weights):
            rows = np.flatnonzero(self._weights == weight)
            phases[rows[random.permutation(len(rows))]] = (np.arange(len(rows)) + 0.5) / len(rows)
        return phases

    def _times_until(self, epoch: float) -> np.ndarray:
        return np.floor(epoch * self._weights + self._phases).astype(np.int64)

    def _seek(self, visit: int) -> None:
        """Make the epoch current that holds this visit."""
        if visit < self._start:
            self._epoch, self._start, self._order = -1, 0, np.empty(0, np.int64)
        while visit >= self._start + len(self._order):
            self._start += len(self._order)
            self._epoch += 1
            self._order = self._shuffled(self._epoch)

    def _shuffled(self, epoch: int) -> np.ndarray:
        until = self._times_until(min(epoch + 1, self._horizon))
        rows = np.repeat(np.arange(len(until)), until - self._times_until(epoch))
        random = np.random.default_rng([self._seed, 1, epoch])
        random.shuffle(rows)
        run = min(RUN, self._rows_per_update)
        dealt = []
        for start in range(0, len(rows), WINDOW):
            window = rows[start : start + WINDOW]
            window = window[np.argsort(self._lengths[window], kind="stable")]
            runs = [window[at : at + run] for at in range(0, len(window), run)]
            dealt += [runs[number] for number in random.permutation(len(runs))]
        return np.concatenate(dealt) if dealt else rows


@dataclass(frozen=True)
class Cutting:
    """How rows are cut into micro-batches.

    rows and positions are the most that one may hold (a single longer row is let through); lengths are padded to a
    multiple of `multiple`; `overhead` is what one more micro-batch costs, in positions. packed: the rows of a
    micro-batch stand one after the other in a single sequence, rather than below each other.
    """

    rows: int
    positions: int
    multiple: int = 1
    overhead: int = 64
    packed: bool = False

    def padded(self, length: int) -> int:
        return -(-length // self.multiple) * self.multiple

    def shape(self, lengths: Sequence[int] | np.ndarray) -> tuple[int, int]:
        """(sequences, positions in each) of a micro-batch whose rows have so many inputs."""
        if self.packed:
            return 1, self.padded(max(1, int(sum(lengths))))
        return len(lengths), self.padded(max(1, *map(int, lengths)))

    def cut(self, rows: Sequence[int] | np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """Micro-batches of these rows, longest first, with the fewest padded positions plus overhead."""
        order = np.asarray(rows)[np.argsort(-lengths[rows], kind="stable")]
        widths = [self.padded(int(length)) for length in lengths[order]]
        until = np.concatenate([[0], np.cumsum(lengths[order])]).tolist()
        best, cut_at = [0.0] * (len(order) + 1), [0] * (len(order) + 1)
        for end in range(1, len(order) + 1):
            best[end] = math.inf
            for start in range(max(0, end - self.rows), end):
                together = self.padded(until[end] - until[start])
                positions = together if self.packed else (end - start) * widths[start]
                if positions > self.positions and end - start > 1:
                    continue
                cost = best[start] + positions + self.overhead
                if cost < best[end]:
                    best[end], cut_at[end] = cost, start
        bounds = [len(order)]
        while bounds[-1]:
            bounds.append(cut_at[bounds[-1]])
        return [order[start:end] for end, start in zip(bounds[-2::-1], bounds[:0:-1], strict=True)]


def cutting_of(train: dict[str, Any], cpu: bool) -> Cutting:
    """How a `train` section's rows are cut on a CPU or an accelerator, which likes few, wide and even micro-batches."""
    return Cutting(
        rows=train["batch_size"],
        positions=train["max_tokens_per_micro_batch"] or (512 if cpu else 4096),
        multiple=1 if cpu else 8,
        overhead=64 if cpu else 512,
        packed=train["packing"],
    )


@dataclass(frozen=True)
class Batch:
    """A micro-batch, padded: `inputs` (sequences, width) int32; for each trained token, where its prediction stands in
    the flattened (sequences * width) positions (`places`) and what it should be (`targets`), both int32; and `tokens`,
    how many positions are not padding. segments: of a packed batch, the row that each position belongs to, int32."""

    inputs: np.ndarray
    places: np.ndarray
    targets: np.ndarray
    tokens: int
    segments: np.ndarray | None = None

    @property
    def positions(self) -> int:
        return self.inputs.size


def gather(store: TokenStore, rows: np.ndarray, cutting: Cutting, *, prompts: bool = False) -> Batch:
    """The rows as one padded micro-batch; prompts: every token is a target, not the answers' alone.

    The last token of a row is only ever a target, so it is not an input.
    """
    pairs = [store.row(int(row)) for row in rows]
    lengths = [len(ids) - 1 for ids, _ in pairs]
    sequences, width = cutting.shape(lengths)
    begins = np.cumsum([0, *lengths[:-1]]) if cutting.packed else np.arange(len(pairs)) * width
    inputs = np.zeros(sequences * width, np.int32)
    segments = np.full(width, len(pairs), np.int32) if cutting.packed else None  # padding is a row of its own
    places, targets = [], []
    for number, ((ids, trained), begin, length) in enumerate(zip(pairs, begins, lengths, strict=True)):
        inputs[begin : begin + length] = ids[:-1]
        if segments is not None:
            segments[begin : begin + length] = number
        at = np.arange(length) if prompts else np.flatnonzero(trained[1:])
        places.append(at + begin)
        targets.append(ids[1:][at])
    return Batch(
        inputs.reshape(sequences, width),
        np.concatenate(places).astype(np.int32),
        np.concatenate(targets).astype(np.int32),
        sum(lengths),
        segments,
    )
