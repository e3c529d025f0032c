"""The table of `snakemake -n`: the steps that would run, why, and how long they take.

It fits a screen: jobs of one step share a line, and where there are too many steps, those of one stage do.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_LINES = 34  # of the table; what Snakemake says before it is a few more, and forty fit a screen
MAX_REASONS = 3  # of one step
MAX_NAMES = 3  # of steps that another one comes after
NEW = "new"


@dataclass(frozen=True)
class PlannedJob:
    """A job that would run.

    step: its rule; stage: the file of its rule; job: what tells it from other jobs of the step, such as an experiment;
    reasons: why it is stale by itself, in words; after: steps that run and whose outputs it takes; seconds: that it
    took the last time or is forecast to take, None where neither is known.
    """

    step: str
    stage: str
    job: str
    reasons: tuple[str, ...]
    after: tuple[str, ...]
    seconds: float | None


@dataclass
class PlannedStep:
    """One line of the table."""

    name: str
    jobs: list[str]
    why: str
    seconds: float | None


def table(jobs: Sequence[PlannedJob], total: int, width: int) -> str:
    """Return the lines for the jobs of a dry run; total: how many jobs the target has; width: characters of a line."""
    seconds = _sum(jobs)
    length = "" if seconds is None else f", about {format_seconds(seconds)} by what they took before"
    head = f"{len(jobs)} of {total} jobs would run{length}\n\n"
    for steps, max_reasons in ((_by_step, MAX_REASONS), (_by_step, 1), (_by_stage, 1)):
        drawn = _draw(steps(jobs, max_reasons), width)
        if drawn.count("\n") < MAX_LINES:
            break
    return head + drawn


def _by_step(jobs: Iterable[PlannedJob], max_reasons: int) -> list[PlannedStep]:
    groups: dict[tuple[str, bool], list[PlannedJob]] = {}
    for job in jobs:
        groups.setdefault((job.step, job.reasons == (NEW,)), []).append(job)
    return [
        PlannedStep(name, _names(group), _why(group, max_reasons), _sum(group)) for (name, _), group in groups.items()
    ]


def _by_stage(jobs: Iterable[PlannedJob], max_reasons: int) -> list[PlannedStep]:
    """Return a line for each stage, and one for each step that is stale by itself."""
    groups: dict[tuple[str, str], list[PlannedJob]] = {}
    for job in jobs:
        own = [reason for reason in job.reasons if reason != NEW]
        groups.setdefault((job.stage, job.step if own else ""), []).append(job)
    lines = []
    for (stage, step), group in groups.items():
        steps = list(dict.fromkeys(job.step for job in group))
        name = step or (steps[0] if len(steps) == 1 else f"{stage}: {len(steps)} steps")
        names = _names(group) if step else [""] * len(group)
        lines.append(PlannedStep(name, names, _why(group, max_reasons), _sum(group)))
    return lines


def _names(group: Sequence[PlannedJob]) -> list[str]:
    return [job.job for job in group]


def _why(group: Sequence[PlannedJob], max_reasons: int) -> str:
    """Return the reasons of some jobs in words: their own first, then what they come after."""
    own = list(dict.fromkeys(reason for job in group for reason in job.reasons))
    if own == [NEW]:
        return NEW
    if len(own) > max_reasons:
        own = [*own[:max_reasons], f"{len(own) - max_reasons} more"]
    inside = {job.step for job in group}
    after = list(dict.fromkeys(step for job in group for step in job.after if step not in inside))
    if not own and after:
        more = len(after) - MAX_NAMES
        own = ["after " + ", ".join(after[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")]
    return "; ".join(own) or "asked for"


def _sum(group: Iterable[PlannedJob]) -> float | None:
    known = [job.seconds for job in group if job.seconds is not None]
    return sum(known) if known else None


def _draw(steps: Sequence[PlannedStep], width: int) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    drawn.add_column("step", no_wrap=True)
    drawn.add_column("jobs", justify="right", no_wrap=True)
    drawn.add_column("why", ratio=1)
    drawn.add_column("time", justify="right", no_wrap=True)
    for step in steps:
        time = "" if step.seconds is None else format_seconds(step.seconds)
        drawn.add_row(Text(_title(step)), str(len(step.jobs)), Text(step.why), time)
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _title(step: PlannedStep) -> str:
    """Return a step's name, with that of its job where it is one of several that could be."""
    return f"{step.name} {step.jobs[0]}".rstrip() if len(step.jobs) == 1 else step.name


def format_seconds(seconds: float) -> str:
    """Return a duration in the unit that a person would use."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
