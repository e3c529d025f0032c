"""What a training says as it goes: metrics.jsonl, timing.jsonl, a tracker and the live line."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from snaketune.engines.mlx import memory
from snaketune.train.batches import Visits
from snaketune.train.metrics_log import Line, Log, Nowhere, clock, short
from snaketune.train.state import Progress
from snaketune.train.tracking import Tracker


@dataclass
class Going:
    """An update that has been set going; its last three numbers are still being computed."""

    update: int
    rate: float
    trained: int
    padding: float
    loss: mx.array
    norm: mx.array
    sound: mx.array


class Telling:
    """One training's voice; `metrics` holds no clock, `timing` what depends on the machine and the moment."""

    def __init__(self, work: Path, progress: Progress, visits: Visits, tracker: Tracker, *, writes: bool) -> None:
        """work: the folder of both logs; writes: whether this worker is the one that keeps them."""
        self.progress, self.visits, self.tracker = progress, visits, tracker
        self.metrics: Log = Nowhere()
        self.timing: Log = Nowhere()
        if writes:
            self.metrics = Log(work / "metrics.jsonl", progress.metrics_size)
            timing = work / "timing.jsonl"  # lines from before a resumption stay: they tell how long an update takes
            self.timing = Log(timing, timing.stat().st_size if timing.exists() else 0)
        self.validated = progress.best.loss  # the last validation; after a resumption, the best until the next
        self.resumed_from, self.resumed_tokens = progress.update, progress.trained_tokens
        self.line = Line()

    def start(self) -> None:
        self.started = time.monotonic()

    def update(self, going: Going) -> None:
        """Say how an update went that is done."""
        progress, update = self.progress, going.update
        loss, norm, epoch = float(going.loss), float(going.norm), self.visits.epoch(update)
        self.metrics.write(
            update=update,
            epoch=short(epoch),
            loss=short(loss),
            learning_rate=short(going.rate),
            gradient_norm=short(norm),
            trained_tokens=going.trained,
            padding=short(going.padding, 4),
        )
        seconds, peak = time.monotonic() - self.started, mx.get_peak_memory()
        self.timing.write(
            update=update,
            seconds=round(seconds, 3),
            cpu_seconds=round(time.process_time(), 3),
            peak_memory_bytes=peak,
        )
        speed = (progress.trained_tokens - self.resumed_tokens) / seconds
        numbers = {"loss": loss, "learning_rate": going.rate, "gradient_norm": norm, "epoch": epoch}
        numbers |= {"padding": going.padding, "trained_tokens_per_second": speed, "memory_gb": peak / memory.GB}
        self.tracker.log(update, numbers)
        left = seconds / (progress.update - self.resumed_from) * (self.visits.updates - update)
        self.line.show(
            f"update {update}/{self.visits.updates}  epoch {epoch:.2f}  loss {loss:.4f}  "
            f"validation {self.validated:.4f} best {progress.best.loss:.4f}  lr {going.rate:.1e}  norm {norm:.2f}  "
            f"{speed:.0f} trained tokens/s  padding {going.padding:.0%}  {peak / memory.GB:.2f} GB  {clock(left)} left"
        )

    def validation(self, loss: float) -> None:
        """Log a validation, before it is known whether it is the best."""
        self.validated = loss
        self.metrics.write(update=self.progress.update, validation_loss=short(loss))
        self.tracker.log(self.progress.update, {"validation_loss": loss})

    def best(self) -> None:
        """Show the validation beside the best one."""
        best = self.progress.best
        self.line.show(
            f"update {self.progress.update}/{self.visits.updates}  validation loss {self.validated:.4f}  "
            f"best {best.loss:.4f} at update {best.update}",
            now=True,
        )

    def close(self) -> None:
        for one in (self.metrics, self.timing, self.tracker):
            one.close()

    def timing_report(self) -> dict[str, Any]:
        """What depends on the machine and the moment; of the last resumption alone."""
        seconds = time.monotonic() - self.started
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "seconds": round(seconds, 3),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
            "tokens_per_second": round((self.progress.trained_tokens - self.resumed_tokens) / seconds, 1),
            "peak_memory_bytes": mx.get_peak_memory(),
            "peak_resident_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "resumed_from": self.resumed_from,
        }
