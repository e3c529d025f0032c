"""Decides what an optimizer step gets: its rows, how they are split into micro-batches, and its learning rate.

All of it is a pure function of lengths, weights and a seed. Every row is visited exactly as often as its weight and the
number of epochs say. Visits are shuffled, sorted by length within a window, and dealt out again in short sorted runs,
so that a micro-batch pads little while a step still mixes lengths. The rows of a step depend on the number of rows per
step alone, never on how they are split into micro-batches. The learning rate warms up, and then stays constant or
decays, linearly or as a cosine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snaketune.config.sections import TrainConfig
from snaketune.errors import TrainingError
from snaketune.tokens.token_store import TokenStore


@dataclass(frozen=True)
class LRSchedule:
    """Learning rate by step.

    peak_lr: after warm-up; kind: `cosine`, `linear` or `constant`; min_lr_ratio: the last step's rate / peak_lr.
    """

    peak_lr: float
    num_steps: int
    kind: str = "cosine"
    warmup_steps: int = 0
    min_lr_ratio: float = 0.0

    def __call__(self, step: int) -> float:
        """The learning rate of step 1, 2, ..., num_steps."""
        if step <= self.warmup_steps:
            return self.peak_lr * step / self.warmup_steps
        if self.kind == "constant":
            return self.peak_lr
        done = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        decay = 1 - done if self.kind == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.peak_lr * (self.min_lr_ratio + (1 - self.min_lr_ratio) * decay)


def schedule_from(config: TrainConfig, num_steps: int) -> LRSchedule:
    """The schedule of a training of so many steps.

    warmup_steps below 1 is a share of the steps. A warm-up that would not end before half of them is cut there, so that
    a short training (the pilot's, above all) reaches its learning rate.
    """
    warmup = config.warmup_steps * num_steps if config.warmup_steps < 1 else config.warmup_steps
    return LRSchedule(
        peak_lr=config.learning_rate,
        num_steps=num_steps,
        kind=config.lr_scheduler,
        warmup_steps=min(round(warmup), num_steps // 2),
        min_lr_ratio=config.min_lr_ratio,
    )


SORT_WINDOW = 1024  # visits that are sorted by length together; more pads less, and mixes the rows less freely
SORTED_RUN_LENGTH = 4  # neighbors in length that stay together


class EpochSampler:
    """The order in which rows are visited, cut into steps.

    lengths (tokens) and weights (visits per epoch): one entry a row. Give `epochs` (any positive number; the last one
    may be a part) or `max_steps`. The order of an epoch is made when it is first asked for, so that a resumed run
    starts anywhere at once.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        weights: np.ndarray,
        *,
        rows_per_step: int,
        seed: int,
        epochs: float | None = None,
        max_steps: int | None = None,
    ) -> None:
        if len(lengths) == 0 or weights.sum() <= 0:
            raise TrainingError(
                "there is no row to train on",
                where="data.sources",
                why="All rows were left out: rejected, too long, or of weight 0",
                fix="Look at the run's data/report.json, raise data.max_length, or add rows",
            )
        self._lengths, self._weights = lengths, weights
        self._rows_per_step, self._seed = rows_per_step, seed
        self._phases = self._stratified_phases()
        self._num_epochs = math.inf if max_steps else float(epochs or 1)
        self.num_visits = max_steps * rows_per_step if max_steps else int(self._counts_until(self._num_epochs).sum())
        if self.num_visits == 0:
            raise TrainingError(
                "no row would be seen even once",
                where="train.epochs",
                why="epochs times the weights of the sources stays below one",
                fix="Raise train.epochs or the sources' weights",
            )
        self.num_steps = -(-self.num_visits // rows_per_step)
        self._epoch, self._start, self._order = -1, 0, np.empty(0, np.int64)

    def rows(self, step: int) -> np.ndarray:
        """The row indices of a step (the first is 1); the last step of a run may have fewer than the others."""
        first = (step - 1) * self._rows_per_step
        last = min(first + self._rows_per_step, self.num_visits)
        parts = []
        while first < last:
            self._load_epoch_of(first)
            part = self._order[first - self._start : last - self._start]
            parts.append(part)
            first += len(part)
        return np.concatenate(parts)

    def epoch(self, step: int) -> float:
        """How many epochs are done after a step."""
        done = min(step * self._rows_per_step, self.num_visits)
        if done == 0:
            return 0.0
        self._load_epoch_of(done - 1)
        fraction = (done - self._start) / len(self._order)
        return self._epoch + fraction * (min(self._epoch + 1, self._num_epochs) - self._epoch)

    def visit_counts(self, step: int) -> np.ndarray:
        """How often each row has been visited after a step: int64, one entry a row."""
        done = min(step * self._rows_per_step, self.num_visits)
        if done == 0:
            return np.zeros(len(self._lengths), np.int64)
        self._load_epoch_of(done - 1)
        seen = self._counts_until(self._epoch)
        return seen + np.bincount(self._order[: done - self._start], minlength=len(seen))

    def _stratified_phases(self) -> np.ndarray:
        """A row of weight 0.5 comes in every other epoch; phases spread the rows of a weight evenly over epochs."""
        random = np.random.default_rng([self._seed, 0])
        phases = np.empty(len(self._weights))
        for weight in np.unique(self._weights):
            rows = np.flatnonzero(self._weights == weight)
            phases[rows[random.permutation(len(rows))]] = (np.arange(len(rows)) + 0.5) / len(rows)
        return phases

    def _counts_until(self, epoch: float) -> np.ndarray:
        return np.floor(epoch * self._weights + self._phases).astype(np.int64)

    def _load_epoch_of(self, visit: int) -> None:
        """Make the epoch current that holds this visit."""
        if visit < self._start:
            self._epoch, self._start, self._order = -1, 0, np.empty(0, np.int64)
        while visit >= self._start + len(self._order):
            self._start += len(self._order)
            self._epoch += 1
            self._order = self._shuffled(self._epoch)

    def _shuffled(self, epoch: int) -> np.ndarray:
        """The row indices of an epoch in the order in which they are visited."""
        until = self._counts_until(min(epoch + 1, self._num_epochs))
        rows = np.repeat(np.arange(len(until)), until - self._counts_until(epoch))
        random = np.random.default_rng([self._seed, 1, epoch])
        random.shuffle(rows)
        run_length = min(SORTED_RUN_LENGTH, self._rows_per_step)
        groups = []
        for start in range(0, len(rows), SORT_WINDOW):
            window = rows[start : start + SORT_WINDOW]
            window = window[np.argsort(self._lengths[window], kind="stable")]
            runs = [window[first : first + run_length] for first in range(0, len(window), run_length)]
            groups += [runs[index] for index in random.permutation(len(runs))]
        return np.concatenate(groups) if groups else rows


def nested_subset(store: TokenStore, num_rows: int, seed: int) -> np.ndarray:
    """The indices (ascending) of the `num_rows` rows that come first in the order of a keyed hash of their content.

    Nested: the subset of a smaller number lies in that of a larger one, and a new row displaces at most one other.
    """
    if num_rows >= len(store):
        return np.arange(len(store))
    key = seed.to_bytes(8, "little")
    digests = (hashlib.blake2b(store.row(row)[0].tobytes(), digest_size=8, key=key) for row in range(len(store)))
    hashes = np.fromiter((int.from_bytes(digest.digest(), "big") for digest in digests), np.uint64, len(store))
    return np.sort(np.argsort(hashes, kind="stable")[:num_rows])


@dataclass(frozen=True)
class MicroBatching:
    """How the rows of a step are split into micro-batches.

    max_rows and max_tokens (padding included) bound a micro-batch; a single longer row is let through. Lengths are
    padded to a multiple of `multiple`; `overhead` is what one more micro-batch costs, in padded tokens. packed: the
    rows of a micro-batch follow one another in a single sequence, rather than being a sequence each.
    """

    max_rows: int
    max_tokens: int
    multiple: int = 1
    overhead: int = 64
    packed: bool = False

    def padded(self, length: int) -> int:
        """A length rounded up to a multiple of `multiple`."""
        return -(-length // self.multiple) * self.multiple

    def shape(self, lengths: Sequence[int] | np.ndarray) -> tuple[int, int]:
        """(sequences, width) of a micro-batch whose rows have inputs of these lengths."""
        if self.packed:
            return 1, self.padded(max(1, int(sum(lengths))))
        return len(lengths), self.padded(max(1, *map(int, lengths)))

    def split(self, rows: Sequence[int] | np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """Micro-batches of these rows, longest first, with the fewest padded tokens plus overhead.

        lengths: of all rows that `rows` index. Dynamic programming over the rows sorted by length: `cost[end]` is the
        least for the first `end` of them, and `last_start[end]` where their last micro-batch begins.
        """
        order = np.asarray(rows)[np.argsort(-lengths[rows], kind="stable")]
        widths = [self.padded(int(length)) for length in lengths[order]]
        total = np.concatenate([[0], np.cumsum(lengths[order])]).tolist()
        cost, last_start = [0.0] * (len(order) + 1), [0] * (len(order) + 1)
        for end in range(1, len(order) + 1):
            cost[end] = math.inf
            for start in range(max(0, end - self.max_rows), end):
                together = self.padded(total[end] - total[start])
                tokens = together if self.packed else (end - start) * widths[start]
                if tokens > self.max_tokens and end - start > 1:
                    continue
                new_cost = cost[start] + tokens + self.overhead
                if new_cost < cost[end]:
                    cost[end], last_start[end] = new_cost, start
        bounds = [len(order)]
        while bounds[-1]:
            bounds.append(last_start[bounds[-1]])
        return [order[start:end] for end, start in zip(bounds[-2::-1], bounds[:0:-1], strict=True)]


def micro_batching_from(config: TrainConfig, *, on_cpu: bool) -> MicroBatching:
    """The micro-batches of a training; an accelerator likes them few, wide and even."""
    return MicroBatching(
        max_rows=config.batch_size,
        max_tokens=config.max_tokens_per_micro_batch or (512 if on_cpu else 4096),
        multiple=1 if on_cpu else 8,
        overhead=64 if on_cpu else 512,
        packed=config.packing,
    )


@dataclass(frozen=True)
class Batch:
    """A padded micro-batch.

    inputs: int32 (sequences, width). For each token with loss, target_positions (int32) is the index of its prediction
    in the flattened sequences * width positions, and labels (int32) its id. num_tokens: positions that are not padding.
    segments: int32 (width,), of a packed batch the index of the row that each position belongs to.
    """

    inputs: np.ndarray
    target_positions: np.ndarray
    labels: np.ndarray
    num_tokens: int
    segments: np.ndarray | None = None

    @property
    def num_positions(self) -> int:
        """Positions, padding included."""
        return self.inputs.size


def collate(store: TokenStore, rows: np.ndarray, batching: MicroBatching, *, train_on_prompts: bool = False) -> Batch:
    """These rows of a store as one padded micro-batch.

    train_on_prompts: every token has loss, not those of the responses alone. The last token of a row is only ever a
    label, so it is not an input.
    """
    pairs = [store.row(int(row)) for row in rows]
    lengths = [len(ids) - 1 for ids, _ in pairs]
    num_sequences, width = batching.shape(lengths)
    starts = np.cumsum([0, *lengths[:-1]]) if batching.packed else np.arange(len(pairs)) * width
    inputs = np.zeros(num_sequences * width, np.int32)
    segments = np.full(width, len(pairs), np.int32) if batching.packed else None  # padding is a segment of its own
    target_positions, labels = [], []
    for index, ((ids, loss_mask), start, length) in enumerate(zip(pairs, starts, lengths, strict=True)):
        inputs[start : start + length] = ids[:-1]
        if segments is not None:
            segments[start : start + length] = index
        positions = np.arange(length) if train_on_prompts else np.flatnonzero(loss_mask[1:])
        target_positions.append(positions + start)
        labels.append(ids[1:][positions])
    return Batch(
        inputs.reshape(num_sequences, width),
        np.concatenate(target_positions).astype(np.int32),
        np.concatenate(labels).astype(np.int32),
        sum(lengths),
        segments,
    )


def subset_for_fraction(fraction: float, rows: int, max_steps: int | None, rows_per_step: int) -> tuple[int, int]:
    """Return (rows, steps) of the training on a fraction of the pilot's rows: as many steps as the pilot makes."""
    return max(1, round(fraction * rows)), max_steps or -(-rows // rows_per_step)
