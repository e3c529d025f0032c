"""What passes between a training step and the process of a trainer: the request and the events."""

from __future__ import annotations

from typing import Literal

import msgspec

from snaketune.files import Record


class TrainerRequest(Record, frozen=True, kw_only=True):
    """request.json, what a driver is handed. Paths are absolute.

    base: the model's folder; folder: where the trainer works, kept for a later start; train_rows, valid_rows: files of
    rows, `input_ids` and `labels` a line; visits: indices of training rows in the order in which they are to be seen,
    over all epochs; settings: in the trainer's own words.
    """

    base: str
    folder: str
    train_rows: str
    valid_rows: str
    visits: list[int]
    steps: int
    dtype: str
    seed: int
    settings: dict[str, object]


class TrainerEvent(Record, frozen=True, kw_only=True):
    """A line that a driver appends to events.jsonl.

    begin: training starts at `step`; step: an optimizer step is done, with its mean loss in nats a token; validation:
    the trainer's own validation loss; stopped: it ended early as it was asked to; done: what it leaves. seconds: since
    the training began; cpu_seconds and memory_bytes are the driver's own, memory at its peak. format: of the adapter's
    folder.
    """

    event: Literal["begin", "step", "validation", "stopped", "done"]
    seconds: float
    cpu_seconds: float
    memory_bytes: int
    step: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    resumable: bool = False
    best_step: int = 0
    adapter: str | None = None
    format: Literal["peft", "mlx-lm"] = "peft"
    blas: str | None = None
    device: str | None = None
    versions: dict[str, str] = msgspec.field(default_factory=dict)
