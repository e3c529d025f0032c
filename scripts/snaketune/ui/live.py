"""A run as it happens: its stages, jobs and curves from events.jsonl, kept up to date for all who watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec

from snaketune.display.board import Board, Job, JobKey, Stage
from snaketune.display.lines import format_progress
from snaketune.runtime.events import Event, EventReader, Progress
from snaketune.ui.processes import Processes
from snaketune.ui.project import Project

INTERVAL = 0.25  # seconds between two looks at the file
MAX_POINTS = 400  # of one curve
MAX_CURVES = 6  # the latest
MAX_JOBS = 40  # that are shown one by one
MAX_MESSAGES = 50  # the latest
Point = tuple[int, float]


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """A job at work; text: its progress in words."""

    name: str
    step: str
    seconds: float
    text: str
    log: str
    progress: Progress | None


class StageState(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of the run; state: waiting, running, begun (none of its jobs is at work now), done, failed or stopped."""

    name: str
    state: str
    planned: int
    finished: int
    failed: list[str]
    seconds: float
    result: str
    jobs: list[JobState]
    more_jobs: int


class CurveState(msgspec.Struct, frozen=True, kw_only=True):
    """The losses of one training, thinned: (step, nats a target token)."""

    name: str
    loss: list[Point]
    validation: list[Point]


class MessageState(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person should know: a warning, a failure, a stop with what was kept, or the end of the run."""

    time: float
    state: str
    step: str
    text: str
    log: str


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a page shows of a run at one moment.

    state: none, starting, running, ending (its last word is said, and its process about to go), finished, failed,
    stopped, or killed where nothing could say its end.
    """

    run: str
    state: str
    command: str
    started: float
    ended: float
    planned: int
    finished: int
    stages: list[StageState]
    curves: list[CurveState]
    messages: list[MessageState]


class Curve:
    """Points of a growing curve: every n-th one, n doubling whenever there are too many; the last always."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._stride = 1
        self._seen = 0
        self._last: Point | None = None

    def add(self, step: int, value: float) -> None:
        """Take in a point; one of an earlier step begins that part anew, as a training does that resumes."""
        while self.points and self.points[-1][0] >= step:
            self.points.pop()
        self._last = (step, value)
        if self._seen % self._stride == 0:
            self.points.append(self._last)
        self._seen += 1
        if len(self.points) >= MAX_POINTS:
            self.points = self.points[::2]
            self._stride *= 2

    def shown(self) -> list[Point]:
        return [*self.points, *([self._last] if self._last and self.points[-1:] != [self._last] else [])]


@dataclass
class _Training:
    """The curves of one training; a validation loss counts once for each time it changes."""

    loss: Curve = field(default_factory=Curve)
    validation: Curve = field(default_factory=Curve)
    latest_validation: float | None = None

    def add(self, progress: Progress) -> None:
        if progress.unit != "step":
            return
        if progress.loss is not None:
            self.loss.add(progress.done, progress.loss)
        if progress.validation_loss is not None and progress.validation_loss != self.latest_validation:
            self.latest_validation = progress.validation_loss
            self.validation.add(progress.done, progress.validation_loss)


class LiveRun:
    """Follows the events of one run."""

    def __init__(self, project: Project, run: str) -> None:
        self.run = run
        self.reader = EventReader(project.run_folder(run) / "events.jsonl")
        self.version = 0
        self.board = Board()
        self.earlier: dict[str, StageState] = {}
        self._begin(None)
        self.trainings: dict[JobKey, _Training] = {}

    def _begin(self, event: Event | None) -> None:
        """Begin the board of a call of snakemake anew; stages that earlier calls have done stay to be seen."""
        now = event.time if event else 0.0
        stages = [self._stage(stage, now) for stage in self.board.stages.values() if stage.is_done]
        self.earlier |= {stage.name: stage for stage in stages if stage.state == "done"}
        self.board = Board()
        self.messages: list[MessageState] = []
        self.logs: dict[JobKey, str] = {}
        self.state = "running" if event else "none"
        self.command = event.command if event else ""
        self.started, self.ended = (event.time if event else 0.0), 0.0

    def refresh(self) -> bool:
        """Take in what was appended since the last time; returns whether there was anything."""
        events = self.reader.read()
        for event in events:
            self._take(event)
        self.version += bool(events)
        return bool(events)

    def _take(self, event: Event) -> None:
        if not event.step and event.state == "started":
            self._begin(event)
        elif not event.step:
            self.state, self.ended = event.state, event.time
            self.command = event.command or self.command
        if event.state in ("warning", "failed") or (event.message and (event.state == "stopped" or not event.step)):
            self.messages.append(
                MessageState(time=event.time, state=event.state, step=event.step, text=event.message, log=event.log)
            )
            del self.messages[:-MAX_MESSAGES]
        if event.step or event.state == "started":
            self.board.apply(event)
        if event.log:
            self.logs[event.job] = event.log
        if event.progress:
            self.trainings.setdefault(event.job, _Training()).add(event.progress)

    def snapshot(self, begun: float | None) -> RunState:
        """The run as it stands; begun: when the process that is at work on it began, None without one."""
        now = self.ended or time.time()
        drawn = {key: one for key, one in self.trainings.items() if one.loss.points or one.validation.points}
        return RunState(
            run=self.run,
            state=self._state(begun),
            command=self.command,
            started=self.started,
            ended=self.ended,
            planned=self.board.planned,
            finished=self.board.finished,
            stages=[
                *(stage for name, stage in self.earlier.items() if name not in self.board.stages),
                *(self._stage(stage, now) for stage in self.board.stages.values()),
            ],
            curves=[
                CurveState(name=_name(key), loss=one.loss.shown(), validation=one.validation.shown())
                for key, one in list(drawn.items())[-MAX_CURVES:]
            ],
            messages=self.messages,
        )

    def _state(self, begun: float | None) -> str:
        if begun is None:
            return "killed" if self.state == "running" else self.state
        if self.state == "running":
            return "running"
        return "ending" if begun < self.ended else "starting"

    def _stage(self, stage: Stage, now: float) -> StageState:
        jobs = list(stage.jobs.values()) if self.state == "running" else []
        begun = stage.finished or stage.jobs
        state = "failed" if stage.failed else "done" if stage.is_done else "running" if jobs else "waiting"
        if state == "waiting" and begun:
            state = "begun" if self.state == "running" else "stopped"
        return StageState(
            name=stage.name,
            state=state,
            planned=stage.planned,
            finished=stage.finished,
            failed=[_name(key) for key in sorted(stage.failed)[:MAX_JOBS]],
            seconds=round(stage.elapsed(now) if jobs else stage.seconds, 1),
            result=stage.result,
            jobs=[self._job(job, now) for job in jobs[:MAX_JOBS]],
            more_jobs=max(0, len(jobs) - MAX_JOBS),
        )

    def _job(self, job: Job, now: float) -> JobState:
        key = (job.step, tuple(sorted(job.wildcards.items())))
        return JobState(
            name=job.name,
            step=job.step,
            seconds=round(job.seconds(now), 1),
            text=format_progress(job.progress) if job.progress else "",
            log=self.logs.get(key, ""),
            progress=job.progress,
        )


def _name(key: JobKey) -> str:
    return " ".join([key[0], *(value for _, value in key[1])])


class Watchers:
    """The runs that are watched; a run is read once, however many pages show it."""

    def __init__(self, project: Project, processes: Processes) -> None:
        self.project, self.processes = project, processes
        self.runs: dict[str, LiveRun] = {}
        self.watching: dict[str, int] = {}

    def look(self, run: str) -> RunState:
        """The run as it stands now."""
        live = self.runs.get(run) or LiveRun(self.project, run)
        live.refresh()
        return live.snapshot(self.processes.begun(run))

    async def follow(self, run: str) -> AsyncIterator[RunState]:
        """The state of a run, at once and after every change, until the page goes away."""
        if run not in self.runs:
            fresh = LiveRun(self.project, run)
            await asyncio.to_thread(fresh.refresh)  # a file of many nights takes a moment
            self.runs.setdefault(run, fresh)
        live = self.runs[run]
        self.watching[run] = self.watching.get(run, 0) + 1
        shown: tuple[int, float | None] | None = None
        try:
            while True:
                live.refresh()
                begun = self.processes.begun(run)
                now = live.version, begun
                if now != shown:
                    shown = now
                    yield live.snapshot(begun)
                await asyncio.sleep(INTERVAL)
        finally:
            self.watching[run] -= 1
            if not self.watching[run]:
                self.watching.pop(run)
                self.runs.pop(run, None)
