"""Log of one run of Snakemake: turns its records into events of the run, and lets the display follow these."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from snakemake_interface_logger_plugins.common import LogEvent
from snaketune.display.board import STAGE_OF, STAGES
from snaketune.display.follower import Follower
from snaketune.display.lines import wrapped
from snaketune.errors import typed_command
from snaketune.report.outcome import outcome_lines, stage_lines
from snaketune.runtime.events import Event, EventFile, State
from snaketune.runtime.progress import format_time

SCRIPT = re.compile(r"/scripts/tmp\w+\.(\w+)\.py\b")  # where Snakemake puts a step's script before it runs it
SIGNAL = re.compile(r"<Signals\.(\w+): \d+>")  # as subprocess.CalledProcessError names one
STOPS = ("SIGINT", "SIGTERM")


@dataclass(frozen=True)
class JobInfo:
    """What Snakemake said about a job when it began."""

    step: str
    wildcards: dict[str, str]
    log: str


class RunLog:
    """Takes the records of one run in their order.

    draws: whether the display is wanted; without it, only the events of the run are written.
    """

    def __init__(self, stream: TextIO, *, draws: bool, dry_run: bool) -> None:
        self.stream, self.draws, self.dry_run = stream, draws, dry_run
        self.file: EventFile | None = None
        self.began = 0.0  # on the monotonic clock
        self.follower: Follower | None = None
        self.heading = ""
        self.command = typed_command(sys.argv[1:])
        self.jobs: dict[int, JobInfo] = {}
        self.planned: set[str] = set()  # rules, the targets among them
        self.finished: set[str] = set()
        self.held: list[str] = []  # said before it is known whether anything will run
        self.errors: list[str] = []  # of processes that failed, until Snakemake says which job that was
        self.executes = self.has_failed = self.was_stopped = self.nothing_to_do = False

    def take(self, record: logging.LogRecord) -> None:
        """Take one record."""
        found = getattr(record, "event", None)
        handlers = {
            LogEvent.WORKFLOW_STARTED: self._workflow_started,
            LogEvent.RUN_INFO: self._run_info,
            LogEvent.JOB_INFO: self._job_info,
            LogEvent.JOB_FINISHED: self._job_finished,
            LogEvent.JOB_ERROR: self._job_error,
            LogEvent.ERROR: self._error,
        }
        if hasattr(record, "snaketune_run"):
            self._announced(record)
        elif hasattr(record, "snaketune_stopped"):
            self._stopped(record)
        elif found in handlers:
            handlers[found](record)
        elif found is None:
            self._plain(record)

    def _announced(self, record: logging.LogRecord) -> None:
        """Take what rules/common.smk says about the run."""
        self.file = EventFile(Path(record.snaketune_run) / "events.jsonl")  # type: ignore[attr-defined]
        self.heading = record.getMessage()

    def _stopped(self, record: logging.LogRecord) -> None:
        """Take what rules/snakemake_patches say of a Ctrl-C; a step that it ended has shown so itself."""
        self.was_stopped = True
        if not self.jobs:
            self.say(record.getMessage())

    def _workflow_started(self, _record: logging.LogRecord) -> None:
        self.executes = not self.dry_run
        self.held.clear()

    def _run_info(self, record: logging.LogRecord) -> None:
        """Begin: the jobs that are going to run are known."""
        if not self.executes or self.file is None or self.follower:
            return
        self.planned = set(record.stats)  # type: ignore[attr-defined]
        steps = {step: count for step, count in record.stats.items() if step in STAGE_OF}  # type: ignore[attr-defined]
        self.file.set_aside_if_large()
        self.began = time.monotonic()
        self._add("started", steps=steps, pid=os.getpid())
        if self.draws:
            self.say(self.heading)
            self.follower = Follower(self.file.path, self.stream)
            self.follower.plan(steps)

    def _job_info(self, record: logging.LogRecord) -> None:
        job = JobInfo(record.rule_name, dict(record.wildcards), next(iter(record.log), ""))  # type: ignore[attr-defined]
        self.jobs[record.jobid] = job  # type: ignore[attr-defined]
        if self.follower and job.step in STAGE_OF:
            self.follower.submit(job.step, job.wildcards)

    def _job_finished(self, record: logging.LogRecord) -> None:
        job = self.jobs.get(record.job_id)  # type: ignore[attr-defined]
        if job:
            self.finished.add(job.step)
        if self.follower and job and job.step in STAGE_OF:
            self.follower.end(self._event("finished", job))

    def _job_error(self, record: logging.LogRecord) -> None:
        """Take the end of a failed job; its own event has said why, unless its process could say nothing."""
        self.has_failed = True
        job = self.jobs.get(record.jobid)  # type: ignore[attr-defined]
        if job is None or self.file is None:
            return
        text = next((text for text in self.errors if job.step in SCRIPT.findall(text)), "")
        self.errors = [other for other in self.errors if other != text]
        killer = SIGNAL.search(text)
        state: State = "stopped" if killer and killer[1] in STOPS else "failed"
        self.was_stopped |= state == "stopped"
        event = self._event(state, job, silent_end(job.step, killer[1] if killer else ""))
        if self.follower is None or self.follower.end(event):
            self.file.append(event)

    def _error(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if SCRIPT.search(text):
            self.errors.append(text)
        elif not (record.exception == "WorkflowError" and self.executes and self._ended_by_jobs()):  # type: ignore[attr-defined]
            self.has_failed = True
            self.say(text)

    def _ended_by_jobs(self) -> bool:
        """Whether failed or stopped jobs, which were shown, are why Snakemake ends."""
        ended = bool(self.jobs)
        self.was_stopped |= not self.has_failed
        return ended

    def _plain(self, record: logging.LogRecord) -> None:
        """Take a record without an event: Snakemake's remarks on its own work."""
        text = record.getMessage()
        if text == nothing_to_be_done():
            self.nothing_to_do = True
        elif record.levelno >= logging.WARNING:
            if not (record.levelno >= logging.ERROR and self.has_failed):
                self.say(text)
        elif not self.executes:
            self.held.append(text)

    def _event(self, state: State, job: JobInfo, message: str = "") -> Event:
        assert self.file
        return Event(
            time=round(time.time(), 3),
            run=self.file.run,
            state=state,
            step=job.step,
            wildcards=job.wildcards,
            log=job.log,
            message=message,
        )

    def _add(self, state: State, *, message: str = "", steps: dict[str, int] | None = None, pid: int = 0) -> None:
        """Write an event about the run as a whole."""
        if self.file:
            self.file.append(
                Event(
                    time=round(time.time(), 3),
                    run=self.file.run,
                    state=state,
                    message=message,
                    steps=steps or {},
                    command=self.command,
                    pid=pid,
                )
            )

    def say(self, text: str) -> None:
        """Show lines, above those that are redrawn; where Snakemake writes itself, it has said them."""
        if not self.draws:
            return
        if self.follower:
            self.follower.say(text)
        else:
            width = os.get_terminal_size(self.stream.fileno()).columns if self.stream.isatty() else 0
            print(wrapped(text, width) if width else text, file=self.stream, flush=True)

    def close(self) -> None:
        """End with what came of the run, and with the command that goes on where it did not get to its end."""
        began = self.follower is not None
        if self.follower:
            self.follower.close()
            self.was_stopped |= self.follower.was_stopped
            self.has_failed = self.follower.has_failed or (self.has_failed and not self.was_stopped)
            self.follower = None
        if not self.executes:
            for text in self.held:
                self.say(text)
            return
        lines = self._outcome()
        if self.nothing_to_do:
            self.say("Nothing to be done: everything is up to date.")
        if self.has_failed or self.was_stopped:
            lines.append(f"To go on: {self.command}")
        elif began:
            self.say(f"done in {format_time(time.monotonic() - self.began)}")
        for line in lines:
            self.say(line)
        if began or not self.draws:
            state: State = "failed" if self.has_failed else "stopped" if self.was_stopped else "finished"
            self._add(state, message="\n".join(lines))

    def _outcome(self) -> list[str]:
        """What stands now: the report's conclusion if it is of this state, else where the stages' results are.

        After a stop or a failure only what this run has made: what it did not get to is of an earlier state.
        """
        if self.file is None:
            return []
        folder = self.file.path.parent
        targets = [stage for stage in STAGES if stage in self.planned or stage in sys.argv[1:]]
        asks_for_file = any(word.startswith(f"{folder.parts[0]}/") for word in sys.argv[1:])
        if "write_report" in self.finished or (
            self.nothing_to_do and not asks_for_file and not set(targets) - {"report"}
        ):
            return outcome_lines(folder)
        begun = {STAGE_OF[step] for step in self.finished if step in STAGE_OF}
        if "all" in self.planned or not targets:
            targets = [stage for stage in STAGES if stage in begun]
        return stage_lines(folder, targets, self.finished if self.has_failed or self.was_stopped else None)


def nothing_to_be_done() -> str:
    """What Snakemake says where nothing is to be done."""
    from snakemake.common import NOTHING_TO_BE_DONE_MSG

    return NOTHING_TO_BE_DONE_MSG


def silent_end(step: str, killer: str) -> str:
    """Say how a step ended whose process could not say it. killer: the name of the signal that ended it, if one did."""
    if killer in STOPS:
        return f"{step} was stopped"
    if killer == signal.SIGKILL.name:
        return (
            f"{step} was ended by SIGKILL. If nobody did that, the system was out of memory: see plan.json for what is "
            "needed, close other programs, and run snakemake again."
        )
    if killer:
        return (
            f"{step} was ended by {killer}. That is a defect of a library or of the machine; run snakemake again, and "
            "report it if it stays."
        )
    return f"{step} failed and did not say why; see its log, and please report it."
