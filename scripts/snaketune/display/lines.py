"""Lines of the display in the fewest words that a person can read at a glance, and the view that is nothing else.

The plain view, for pipes, logs and CI, writes one line for each finished step, and one at intervals for a long one.
"""

from __future__ import annotations

import re
import textwrap
from typing import TextIO

from snaketune.display.board import Board, Job, Stage
from snaketune.runtime.events import Event, Progress
from snaketune.runtime.progress import format_bytes, format_time

COMMAND = re.compile(r"^(?:run:|To go on:)|`")


def format_progress(progress: Progress) -> str:
    """How far a step is: `step 120 of 400, 2:05 min left, loss 0.482, validation 0.510, 1,240 tokens/s`."""
    parts = [f"{progress.activity} {format_count(progress)}".strip()]
    if progress.seconds_left is not None:  # first of the numbers: a narrow terminal cuts off the last
        parts.append(f"{format_time(progress.seconds_left)} left")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.validation_loss is not None:
        parts.append(f"validation {progress.validation_loss:.3f}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    return ", ".join(parts)


def format_count(progress: Progress) -> str:
    """How many are done, of how many: `step 120 of 400`, `9 of 200 answers`."""
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


def end_line(stage: Stage) -> str:
    """What came of a stage that has ended, or has got no further."""
    if stage.failed:
        names = [" ".join([step, *(value for _, value in which)]) for step, which in sorted(stage.failed)]
        ended = f"{_first(names)} failed"
    elif stage.stopped:
        job = next(iter(stage.stopped.values()))
        reached = f" at {format_count(job.progress)}" if job.progress and job.progress.done else ""
        ended = f"{_first([one.name for one in stage.stopped.values()])} stopped{reached}"
    elif not stage.is_done:
        ended = f"{stage.finished:,} of {stage.planned:,} steps done"
    else:
        ended = "" if stage.result else f"{stage.finished:,} step{'s' if stage.finished > 1 else ''} done"
    return "; ".join(filter(None, [stage.result, ended]))


def wrapped(text: str, width: int) -> str:
    """Break lines for a person between words; a command stays one line, to be copied."""
    wrap = textwrap.TextWrapper(
        width, break_long_words=False, break_on_hyphens=False, expand_tabs=False, replace_whitespace=False
    ).wrap
    return "\n".join(line if COMMAND.search(line) else "\n".join(wrap(line)) for line in text.split("\n"))


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


INTERVAL = 15.0  # seconds between two lines about a job that goes on
MOST_JOBS = 4  # with more of them at once, as on a cluster, one line speaks for all


class PlainView:
    """Writes lines that are never redrawn."""

    def __init__(self, stream: TextIO, board: Board) -> None:
        self.stream, self.board = stream, board
        self._shown_at: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Write lines for a person."""
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def ended(self, job: Job, event: Event) -> None:
        """Write that a job has ended."""
        if event.state == "finished":
            result = f": {event.message}" if event.message else ""
            count = f"[{self.board.finished} of {self.board.planned}]"
            self.say(f"{count} {job.name}{result} ({format_time(job.seconds(event.time))})")

    def tick(self, now: float) -> None:
        """Write how far the jobs are that have gone on for a while."""
        running = [job for job in self.board.jobs() if job.seconds(now) >= INTERVAL]
        due = [job for job in running if now - self._shown_at.get(job.name, 0) >= INTERVAL]
        if len(running) > MOST_JOBS:
            if now - self._shown_at.get("", 0) >= INTERVAL:
                self._shown_at[""] = now
                self.say(self._summary())
            return
        for job in due:
            self._shown_at[job.name] = now
            self.say(f"{job_line(job)} ({format_time(job.seconds(now))} so far)")

    def _summary(self) -> str:
        stages = [
            f"{stage.name}: {stage.finished} of {stage.planned} done, {len(stage.jobs)} at work"
            for stage in self.board.stages.values()
            if stage.jobs
        ]
        return "; ".join(stages)

    def close(self, now: float) -> None:
        """Nothing to leave behind: every line stands already."""
