"""metrics.jsonl and timing.jsonl as files that grow and are cut back: writers, readers, the status line, the loss plot.

A plot is SVG, the same bytes for the same metrics. Callbacks are hooks into a running training.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from snaketune import files
from snaketune.contracts.train import StepMetrics, TrainingSummary, ValidationMetrics
from snaketune.files import Record, StrPath, read_jsonl


@dataclass(frozen=True)
class WorkerProgress:
    """A worker process as its launcher sees it: its rank, its host, and how many collective operations it has begun."""

    rank: int
    host: str
    num_collectives: int


class TrainingCallback:
    """Hooks into a training; each does nothing until a subclass overrides it.

    An exception that a hook raises ends the training as a kill would: what is saved is the last checkpoint. With
    several worker processes only `on_workers` is called, in the process that started them.
    """

    def on_start(self, num_steps: int) -> None:
        """Called once the model is loaded, before anything is computed."""

    def on_step_begin(self, step: int) -> None:
        """Called before a step is dispatched."""

    def on_step_end(self, metrics: StepMetrics) -> None:
        """Called once a step is computed and logged, which is while the next one runs."""

    def on_validation(self, metrics: ValidationMetrics) -> None:
        """Called after a validation."""

    def on_checkpoint(self, step: int) -> None:
        """Called once a checkpoint is on disk."""

    def on_workers(self, workers: Sequence[WorkerProgress]) -> None:
        """Called several times a second while worker processes train."""


def draw_loss(metrics: files.StrPath, picture: files.StrPath) -> None:
    """Draw training loss (each step, and a running mean) and validation loss over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = read_metrics(metrics)
    train = [(line.step, line.loss) for line in lines if isinstance(line, StepMetrics) and line.loss is not None]
    valid = [(line.step, line.validation_loss) for line in lines if isinstance(line, ValidationMetrics)]
    train_loss, valid_loss = (np.array(points, float).reshape(-1, 2) for points in (train, valid))
    with pyplot.rc_context({"svg.hashsalt": "snaketune", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
        if len(train_loss):
            axes.plot(*train_loss.T, color="0.75", linewidth=0.8, label="training, each step")
            span = max(1, len(train_loss) // 50)
            mean = np.convolve(train_loss[:, 1], np.ones(span) / span, mode="valid")
            axes.plot(train_loss[span - 1 :, 0], mean, color="C0", label=f"training, mean of {span}")
        if len(valid_loss):
            axes.plot(*valid_loss.T, color="C3", marker="o", markersize=3, label="validation")
            best = valid_loss[np.argmin(valid_loss[:, 1])]
            axes.annotate(f"{best[1]:.4f}", best, textcoords="offset points", xytext=(0, 8), ha="center", color="C3")
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per target token)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        with files.replacing(picture) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


REDRAW_INTERVAL = 0.2  # seconds between two drawings on a terminal
LOG_INTERVAL = 15.0  # seconds between two lines in a log


def round_significant(value: float, digits: int = 7) -> float | None:
    """A number rounded to so many significant digits, as logs have it; None where it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def summary_sentence(summary: TrainingSummary) -> str:
    """Say in half a sentence what came of a training."""
    losses = [summary.base_validation_loss, summary.best_validation_loss]
    before, best = (f"{loss:.3f}" if loss is not None else "not finite" for loss in losses)
    planned = "" if summary.steps == summary.planned_steps else f" of {summary.planned_steps:,}"
    at = f"at step {summary.best_step:,}, which is kept" if summary.beat_base else "at best: no step beat the base"
    return f"{summary.steps:,}{planned} steps: validation loss {before} before, {best} {at}"


def read_metrics(path: StrPath) -> list[StepMetrics | ValidationMetrics]:
    """The lines of metrics.jsonl."""
    lines: list[StepMetrics | ValidationMetrics] = []
    for line in read_jsonl(path):
        if "validation_loss" in line:
            lines.append(msgspec.convert(line, ValidationMetrics))
        else:
            lines.append(msgspec.convert(line, StepMetrics))
    return lines


class JsonlLog:
    """A JSON Lines file that grows; a resumed run cuts it back to the size that its checkpoint names."""

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        with open(path, "ab") as out:
            out.truncate(size)
        self._out = open(path, "ab")  # noqa: SIM115 - open as long as the training is

    def write(self, record: Record) -> None:
        """Append a record; its fields keep their order, NaN is refused."""
        line = json.dumps(msgspec.to_builtins(record), ensure_ascii=False, allow_nan=False)
        self._out.write(line.encode() + b"\n")

    def size(self) -> int:
        """Bytes safely on disk."""
        self._out.flush()
        os.fsync(self._out.fileno())
        return self._out.tell()

    def close(self) -> None:
        self._out.close()


class NullLog(JsonlLog):
    """The log of a worker that leaves writing to the main process."""

    def __init__(self) -> None:
        pass

    def write(self, record: Record) -> None:
        pass

    def size(self) -> int:
        return 0

    def close(self) -> None:
        pass


class StatusLine:
    """Status line: redrawn in place on a terminal; a plain line every `LOG_INTERVAL` in a log."""

    def __init__(self) -> None:
        self._terminal = getattr(sys.stderr, "terminal", sys.stderr)  # past the copy into a step's log
        self._redraws = self._terminal.isatty()
        self._last_drawn = self._last_printed = -math.inf

    def show(self, text: str, *, now: bool = False) -> None:
        """Show a line; it may be left out if the last one was a moment ago, unless it must be shown `now`."""
        moment = time.monotonic()
        if self._redraws and not now and moment - self._last_drawn > REDRAW_INTERVAL:
            self._last_drawn = moment
            self._terminal.write(f"\r\x1b[K{text}")
            self._terminal.flush()
        if now or (not self._redraws and moment - self._last_printed > LOG_INTERVAL):
            self._last_printed = moment
            if self._redraws:
                self._terminal.write("\r\x1b[K")
            print(text, file=sys.stderr, flush=True)


def format_duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
