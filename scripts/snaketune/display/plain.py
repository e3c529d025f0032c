"""Plain view of a run, for pipes, logs and CI: one line for each finished step, and one at intervals for a long one."""

from __future__ import annotations

from typing import TextIO

from snaketune.display.board import Board, Job
from snaketune.display.lines import job_line
from snaketune.runtime.events import Event
from snaketune.runtime.progress import format_time

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
