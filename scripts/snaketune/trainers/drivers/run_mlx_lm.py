"""Trains with mlx-lm's own `lora` (docs/engines.md); runs inside an environment with mlx-lm alone.

`mlx_lm.lora.train_model` is what the command `mlx_lm.lora --train` calls once it has read its rows; ours are token ids
already.
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Iterable
from typing import Any

from driver import IGNORED, Events, begin, read_rows, versions
from fast_blas import preload

PACKAGES = ("mlx-lm", "mlx", "transformers")


def main() -> None:
    request, events = begin()
    blas = preload()
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.lora import train_model
    from mlx_lm.utils import load

    model, _ = load(request.base)
    dtype = "float32" if request.dtype == "auto" and mx.default_device() == mx.cpu else request.dtype
    if dtype != "auto":
        model.set_dtype(getattr(mx, dtype))
    settings = dict(request.settings)
    targets = settings.pop("target_modules")
    if targets:
        settings["lora_parameters"]["keys"] = _paths(model, targets, nn.Module)
    adapter = request.folder / "adapter"
    total = sum(array.size for _, array in tree_flatten(model.parameters()))
    arguments = types.SimpleNamespace(model=request.base, adapter_path=str(adapter), **settings)
    train_rows = read_rows(request.train_rows)
    events.begin(0)
    train_model(
        arguments,
        model,
        Rows(train_rows, None if _evenly_seen(len(train_rows), request.visits) else request.visits),
        Rows(_enough(read_rows(request.valid_rows), arguments.batch_size)),
        Reporter(events, arguments.grad_accumulation_steps),
    )
    events.write(
        "done",
        step=request.steps,
        best_step=request.steps,
        adapter=str(adapter),
        format="mlx-lm",
        blas=blas,
        trainable_parameters=sum(array.size for _, array in tree_flatten(model.trainable_parameters())),
        total_parameters=total,
        versions=versions(*PACKAGES),
    )


class Rows:
    """Rows as mlx-lm's loop takes them: the ids, and where the last answer begins (it trains from there on)."""

    def __init__(self, rows: list[dict[str, list[int]]], visits: Iterable[int] | None = None) -> None:
        self._rows = [self._pair(row) for row in rows]
        self._visits = list(range(len(rows)) if visits is None else visits)

    @staticmethod
    def _pair(row: dict[str, list[int]]) -> tuple[list[int], int]:
        labels = row["labels"]
        end = max((at for at, label in enumerate(labels) if label != IGNORED), default=len(labels) - 1)
        start = end
        while start > 0 and labels[start - 1] != IGNORED:
            start -= 1
        return row["input_ids"][: end + 1], start

    def __len__(self) -> int:
        return len(self._visits)

    def __getitem__(self, index: int) -> tuple[list[int], int]:
        return self._rows[self._visits[index]]

    def process(self, row: tuple[list[int], int]) -> tuple[list[int], int]:
        """The row as it is: mlx-lm would tokenize here."""
        return row


class Reporter:
    """What mlx-lm reports, as events. It counts iterations, of which several may make one step."""

    def __init__(self, events: Events, accumulation: int) -> None:
        self.events, self.accumulation = events, accumulation

    def on_train_loss_report(self, report: Any) -> None:
        step = report["iteration"] // self.accumulation
        self.events.write(
            "step", step=step, loss=report["train_loss"], learning_rate=report["learning_rate"], grad_norm=None
        )

    def on_val_loss_report(self, report: Any) -> None:
        self.events.write("validation", step=report["iteration"] // self.accumulation, loss=report["val_loss"])


def _evenly_seen(num_rows: int, visits: list[int]) -> bool:
    """Whether all rows are seen equally often, so that its own epochs do; copies of a row would share a batch."""
    counts = Counter(visits)
    seen = [counts[row] for row in range(num_rows)]
    return max(seen) - min(seen) <= 1


def _enough(rows: list[dict[str, list[int]]], batch_size: int) -> list[dict[str, list[int]]]:
    """Validation rows, none of them where they are fewer than a micro-batch: mlx-lm would stop."""
    return rows if len(rows) >= batch_size else []


def _paths(model: Any, names: list[str], module: type) -> list[str]:
    """The paths inside a block of its layers with one of these names or paths."""
    paths = {path for layer in model.layers for path, part in layer.named_modules() if isinstance(part, module)}
    return sorted(path for path in paths if path in names or path.rsplit(".", 1)[-1] in names)


if __name__ == "__main__":
    main()
