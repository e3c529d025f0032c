"""Lines of the display: numbers, times and progress in the fewest words that a person can read at a glance."""

from __future__ import annotations

from snaketune.display.board import Job, Stage
from snaketune.runtime.events import Progress
from snaketune.runtime.progress import format_bytes, format_time


def format_progress(progress: Progress) -> str:
    """How far a step is: `step 120 of 400, 2:05 min left, loss 0.482, validation 0.510, 1,240 tokens/s`."""
    parts = [f"{progress.activity} {_count(progress)}".strip()]
    if progress.seconds_left is not None:  # first of the numbers: a narrow terminal cuts off the last
        parts.append(f"{format_time(progress.seconds_left)} left")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.validation_loss is not None:
        parts.append(f"validation {progress.validation_loss:.3f}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    return ", ".join(parts)


def _count(progress: Progress) -> str:
    if progress.unit == "bytes":
        done, total = format_bytes(progress.done), format_bytes(progress.total) if progress.total else ""
        return f"{done} of {total}" if total else done
    if not progress.total and not progress.done:
        return ""
    if progress.unit == "step":
        return f"step {progress.done:,}" + (f" of {progress.total:,}" if progress.total else "")
    return f"{progress.done:,}" + (f" of {progress.total:,}" if progress.total else "") + f" {progress.unit}"


def job_line(job: Job, *, is_training_alone: bool = False) -> str:
    """What one job does now; a training that runs alone in its stage needs no name, and its numbers need the room."""
    if job.started is None:
        return f"{job.name}: waiting to start"
    if is_training_alone and job.progress and job.progress.unit == "step":
        return format_progress(job.progress)
    return f"{job.name}: {format_progress(job.progress)}" if job.progress else job.name


def stage_count(stage: Stage) -> str:
    """How many of a stage's steps are through, where it has more than one."""
    return f"{stage.finished} of {stage.planned}" if stage.planned > 1 else ""
