"""Board of a run: what each stage does, and what came of it, kept up to date from the events of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from snaketune.runtime.events import Event, Progress

STAGES: dict[str, tuple[str, ...]] = {
    "data": ("validate_rows", "split_rows", "preview_rows", "preview", "tokenize_rows", "check_leaks", "pass_leaks"),
    "model": ("build_demo", "fetch_config", "fetch_model", "quantize_base"),
    "plan": ("forecast_run",),
    "pilot": ("dry_run_pilot", "train_subset", "train_pilot", "write_pilot_report", "decide_pilot", "pass_pilot"),
    "train": ("train_adapter", "score_experiment", "select_experiment"),
    "package": (
        "export_adapter",
        "fuse_adapter",
        "convert_gguf",
        "collect_imatrix",
        "quantize_gguf",
        "quantize_gguf_imatrix",
        "quantize_mlx",
        "write_modelfile",
        "check_fidelity",
        "pass_fidelity",
    ),
    "evaluate": (
        "open_test_rows",
        "generate_answers",
        "score_answers",
        "compare_scores",
        "compare_experiments",
        "export_lm_eval",
        "run_lm_eval",
        "pass_thresholds",
    ),
    "deploy": ("check_serving", "check_prompts", "pass_serving", "write_card", "register_ollama", "upload_model"),
    "report": ("save_config", "record_run", "compare_runs", "bundle_run", "write_report"),
}
"""The steps of each stage."""
SPEAKERS = {
    "data": ["pass_leaks"],
    "pilot": ["decide_pilot"],
    "package": ["pass_fidelity", "quantize_gguf", "quantize_gguf_imatrix", "quantize_mlx"],
}
"""Whose results stand for the stage; where none is named here, the last step's that had any."""
STAGE_OF = {step: stage for stage, steps in STAGES.items() for step in steps}
OTHER = "other"  # the stage of a step that this version does not know

JobKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class Job:
    """A job that runs, or waits in the queue of a cluster: then it has not started."""

    step: str
    wildcards: Mapping[str, str]
    submitted: float
    started: float | None = None
    progress: Progress | None = None

    @property
    def name(self) -> str:
        """The step and which one of its jobs: `quantize_gguf q4_k_m`."""
        return " ".join([self.step, *self.wildcards.values()])

    def seconds(self, now: float) -> float:
        return max(0.0, now - (self.started or self.submitted))


@dataclass
class Stage:
    """A stage of the run. seconds: the time in which at least one of its jobs ran, up to `since`."""

    name: str
    planned: int = 0
    finished: int = 0
    failed: set[JobKey] = field(default_factory=set)
    stopped: dict[JobKey, Job] = field(default_factory=dict)  # by a person, as far as they were
    jobs: dict[JobKey, Job] = field(default_factory=dict)
    results: dict[str, dict[JobKey, str]] = field(default_factory=dict)
    seconds: float = 0.0
    since: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether nothing of it is left to run; jobs behind a failed or stopped one never run."""
        return self.finished >= self.planned and not self.jobs and not self.failed and not self.stopped

    @property
    def has_begun(self) -> bool:
        return bool(self.finished or self.jobs or self.failed or self.stopped)

    @property
    def result(self) -> str:
        """What came of it, in the words of the steps that speak for it."""
        order = [*STAGES.get(self.name, ()), *self.results]
        spoken = [step for step in SPEAKERS.get(self.name, []) if step in self.results]
        last = sorted(self.results, key=order.index)[-1:]
        return "; ".join("; ".join(self.results[step].values()) for step in spoken or last)

    def elapsed(self, now: float) -> float:
        return self.seconds + (max(0.0, now - self.since) if self.jobs else 0.0)

    def count_time(self, now: float) -> None:
        """Add the time since the last change, if a job ran in it."""
        self.seconds, self.since = self.elapsed(now), now


class Board:
    """The stages of one run, in their order."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}

    @property
    def finished(self) -> int:
        return sum(stage.finished for stage in self.stages.values())

    @property
    def planned(self) -> int:
        return sum(stage.planned for stage in self.stages.values())

    @property
    def failed(self) -> int:
        return sum(len(stage.failed) for stage in self.stages.values())

    def jobs(self) -> Iterable[Job]:
        """The jobs that run or wait now, the oldest first."""
        jobs = [job for stage in self.stages.values() for job in stage.jobs.values()]
        return sorted(jobs, key=lambda job: job.submitted)

    def stage(self, step: str) -> Stage:
        """The stage that a step belongs to."""
        name = STAGE_OF.get(step, OTHER)
        if name not in self.stages:
            self.stages[name] = Stage(name)
            order = [*STAGES, OTHER]
            self.stages = dict(sorted(self.stages.items(), key=lambda item: order.index(item[0])))
        return self.stages[name]

    def plan(self, steps: Mapping[str, int]) -> None:
        """Note how many jobs of each step are going to run."""
        for step, count in steps.items():
            self.stage(step).planned += count

    def submit(self, step: str, wildcards: Mapping[str, str], now: float) -> None:
        """Note that a job was given to the machine or to a cluster, whose step has yet to report its start."""
        key = (step, tuple(sorted(wildcards.items())))
        stage = self.stage(step)
        stage.count_time(now)
        stage.jobs.setdefault(key, Job(step, dict(wildcards), now))

    def apply(self, event: Event) -> Job | None:
        """Take in one event of a step, or the start of the run; returns the job that it ends."""
        if not event.step:
            self.plan(event.steps)
            return None
        stage = self.stage(event.step)
        stage.count_time(event.time)
        if event.state in ("started", "progress"):
            job = stage.jobs.setdefault(event.job, Job(event.step, event.wildcards, event.time))
            stage.failed.discard(event.job)  # it is tried again
            stage.stopped.pop(event.job, None)
            job.started = job.started or event.time
            job.progress = event.progress
        elif event.state in ("finished", "failed", "stopped"):
            return self._end(stage, event)
        return None

    def _end(self, stage: Stage, event: Event) -> Job | None:
        job = stage.jobs.pop(event.job, None)
        if job is None:
            return None  # it was reported twice
        if event.state == "finished":
            stage.finished += 1
            if event.message:
                stage.results.setdefault(event.step, {})[event.job] = event.message
        elif event.state == "stopped":
            stage.stopped[event.job] = job
        else:
            stage.failed.add(event.job)
        return job
