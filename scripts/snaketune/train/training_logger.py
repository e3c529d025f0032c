"""Training logger: metrics.jsonl, timing.jsonl, the experiment tracker and the status line."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsFloat

from snaketune.contracts.train import StepMetrics, StepTiming, TrainingTiming, ValidationMetrics
from snaketune.runtime.events import Progress, report_progress
from snaketune.train.batches import EpochSampler
from snaketune.train.checkpoints import TrainerState
from snaketune.train.metrics_log import (
    JsonlLog,
    NullLog,
    StatusLine,
    TrainingCallback,
    format_duration,
    round_significant,
)
from snaketune.train.tracking import Tracker

GB = 10**9


@dataclass(frozen=True)
class PendingStep:
    """A dispatched optimizer step; loss, grad_norm and is_finite are lazy: float() or bool() waits for them.

    loss: mean over the step's target tokens, nats; grad_norm: before clipping; padding_ratio: padding / all positions.
    """

    step: int
    learning_rate: float
    num_target_tokens: int
    padding_ratio: float
    loss: SupportsFloat
    grad_norm: SupportsFloat
    is_finite: object


class TrainingLogger:
    """Logs one training. metrics.jsonl is deterministic; anything time- or machine-dependent goes to timing.jsonl.

    folder: where both logs grow, None for a worker that writes nothing; peak_memory: bytes that the engine has held.
    """

    def __init__(
        self,
        folder: Path | None,
        state: TrainerState,
        sampler: EpochSampler,
        *,
        tracker: Tracker,
        callback: TrainingCallback,
        peak_memory: Callable[[], int],
    ) -> None:
        self.state, self.sampler, self.tracker, self.callback = state, sampler, tracker, callback
        self.peak_memory = peak_memory
        self.metrics: JsonlLog = NullLog()
        self.timing: JsonlLog = NullLog()
        if folder:
            self.metrics = JsonlLog(folder / "metrics.jsonl", state.metrics_size)
            timing = folder / "timing.jsonl"  # lines from before a resumption stay: the forecast of time reads them
            self.timing = JsonlLog(timing, timing.stat().st_size if timing.exists() else 0)
        self.last_validation_loss = state.early_stopping.best_loss  # after a resumption, the best until the next one
        self.resumed_from, self._resumed_tokens = state.step, state.num_target_tokens
        self.status_line = StatusLine()

    def start(self) -> None:
        """Start the clock of timing.json."""
        self._start_time = time.monotonic()

    def log_step(self, pending: PendingStep) -> None:
        """Log a step; waits until it is computed."""
        loss, grad_norm, step = float(pending.loss), float(pending.grad_norm), pending.step
        metrics = StepMetrics(
            step=step,
            epoch=round_significant(self.sampler.epoch(step)),
            loss=round_significant(loss),
            learning_rate=round_significant(pending.learning_rate),
            grad_norm=round_significant(grad_norm),
            num_target_tokens=pending.num_target_tokens,
            padding_ratio=round_significant(pending.padding_ratio, 4),
        )
        self.metrics.write(metrics)
        seconds, peak = time.monotonic() - self._start_time, self.peak_memory()
        self.timing.write(
            StepTiming(
                step=step,
                seconds=round(seconds, 3),
                cpu_seconds=round(time.process_time(), 3),
                peak_memory_bytes=peak,
            )
        )
        self._report(pending, loss, grad_norm, seconds, peak)
        self.callback.on_step_end(metrics)

    def _report(self, pending: PendingStep, loss: float, grad_norm: float, seconds: float, peak: int) -> None:
        """Send a step to the tracker and to the status line."""
        step, num_steps, epoch = pending.step, self.sampler.num_steps, self.sampler.epoch(pending.step)
        tokens_per_second = (self.state.num_target_tokens - self._resumed_tokens) / seconds
        numbers = {
            "loss": loss,
            "learning_rate": pending.learning_rate,
            "grad_norm": grad_norm,
            "epoch": epoch,
            "padding_ratio": pending.padding_ratio,
            "target_tokens_per_second": tokens_per_second,
            "memory_gb": peak / GB,
        }
        self.tracker.log(step, numbers)
        left = seconds / (self.state.step - self.resumed_from) * (num_steps - step)
        report_progress(
            Progress(
                activity="",
                done=step,
                total=num_steps,
                unit="step",
                seconds_left=round(left, 1),
                loss=round_significant(loss),
                validation_loss=round_significant(self.last_validation_loss),
                best_validation_loss=round_significant(self.state.early_stopping.best_loss),
                learning_rate=round_significant(pending.learning_rate),
                tokens_per_second=round(tokens_per_second, 1),
                memory_bytes=peak,
            )
        )
        self.status_line.show(
            f"step {step}/{num_steps}  epoch {epoch:.2f}  loss {loss:.4f}  "
            f"validation {self.last_validation_loss:.4f} best {self.state.early_stopping.best_loss:.4f}  "
            f"lr {pending.learning_rate:.1e}  grad norm {grad_norm:.2f}  {tokens_per_second:.0f} target tokens/s  "
            f"padding {pending.padding_ratio:.0%}  {peak / GB:.2f} GB  {format_duration(left)} left"
        )

    def report_validation(self, done: int, total: int) -> None:
        """Say how many of the validation rows have been scored."""
        report_progress(Progress(activity=f"validation after step {self.state.step}", done=done, total=total))

    def log_validation(self, loss: float) -> None:
        """Log a validation, before it is known whether it is the best."""
        self.last_validation_loss = loss
        metrics = ValidationMetrics(step=self.state.step, validation_loss=round_significant(loss))
        self.metrics.write(metrics)
        self.tracker.log(self.state.step, {"validation_loss": loss})
        self.callback.on_validation(metrics)

    def show_best(self) -> None:
        """Show the last validation beside the best one."""
        best = self.state.early_stopping
        self.status_line.show(
            f"step {self.state.step}/{self.sampler.num_steps}  validation loss {self.last_validation_loss:.4f}  "
            f"best {best.best_loss:.4f} at step {best.best_step}",
            now=True,
        )

    def close(self) -> None:
        for log in (self.metrics, self.timing, self.tracker):
            log.close()

    def training_timing(self) -> TrainingTiming:
        """What timing.json holds; seconds are those of the last resumption alone."""
        seconds = time.monotonic() - self._start_time
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return TrainingTiming(
            seconds=round(seconds, 3),
            cpu_seconds=round(usage.ru_utime + usage.ru_stime, 3),
            tokens_per_second=round((self.state.num_target_tokens - self._resumed_tokens) / seconds, 1),
            peak_memory_bytes=self.peak_memory(),
            peak_resident_bytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            resumed_from=self.resumed_from,
        )
