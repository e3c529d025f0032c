"""Why each job of a dry run would run, in a person's words, from Snakemake's graph and its records; no patch.

Snakemake itself stops looking once a job comes after one that runs; here each job is also compared with its record.
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snaketune.config.differences import changed_keys
from snaketune.runtime.code_digest import covered_files
from snaketune.runtime.planned_steps import NEW, PlannedJob, table


def dry_run_table(workflow: Any, width: int) -> str:
    """Return the table of the jobs that a dry run would start, before its scheduler takes them for finished."""
    jobs = planned_jobs(workflow)
    total = sum(1 for job in workflow.dag.jobs if not job.rule.norun)
    return table(jobs, total, width)


def planned_jobs(workflow: Any) -> list[PlannedJob]:
    """Return the jobs that would run, in the order of the chain."""
    dag = workflow.dag
    order = {job: level for level, jobs in enumerate(dag.toposorted()) for job in jobs}
    rules = {rule.name: place for place, rule in enumerate(workflow.rules)}
    jobs = [job for job in dag.needrun_jobs(exclude_finished=False) if not job.rule.norun]
    jobs.sort(key=lambda job: (rules[job.rule.name], order[job], str(job.output[0])))
    return [_planned(job, workflow) for job in jobs]


def _planned(job: Any, workflow: Any) -> PlannedJob:
    made_again = {
        dependency: files
        for dependency, files in workflow.dag.dependencies[job].items()
        if workflow.dag.needrun(dependency) and not all(file.is_ancient for file in files)
    }
    from_these = {str(file) for files in made_again.values() for file in files}
    return PlannedJob(
        step=job.rule.name,
        stage=Path(str(job.rule.snakefile)).stem,
        job=", ".join(map(str, job.wildcards_dict.values())),
        reasons=tuple(dict.fromkeys(_reasons(job, workflow, from_these))),
        after=tuple(sorted({dependency.rule.name for dependency in made_again})),
        seconds=_last_time(job),
    )


def _reasons(job: Any, workflow: Any, made_again: set[str]) -> Iterator[str]:
    """Return why a job is stale by itself; made_again: those of its inputs that other jobs make first."""
    persistence, reason = workflow.persistence, workflow.dag.reason(job)
    recorded = [file for file in job.output if persistence.metadata(file)]
    exist = [file for file in job.output if Path(str(file)).exists()]
    if reason.forced:
        yield "asked for"
    if not recorded:
        yield "no record of its files" if exist else NEW
        return
    yield from _lost_or_edited(job, workflow, bool(made_again))
    if reason.incomplete_output:
        yield "it was cut off"
    yield from _changed_params(job, recorded[0], workflow)
    yield from _changed_inputs(job, recorded[0], workflow)
    yield from (f"{file} changed" for file in sorted(map(str, reason.updated_input)) if file not in made_again)


def _lost_or_edited(job: Any, workflow: Any, comes_after: bool) -> Iterator[str]:
    """Return which outputs are gone or not as the step left them; a temporary one is gone as a rule."""
    journal, missing = workflow.persistence.journal, set(map(str, workflow.dag.reason(job).missing_output))
    for output in job.output:
        file = str(output)
        if Path(file).exists():
            if journal.is_modified(file):
                yield f"{file} was changed by hand"
            elif not journal.is_unmodified(file):
                yield f"no record of {file}"
        elif file in missing and not output.flags.get("temp"):
            yield f"{file} is missing"
        elif file in missing and not comes_after:
            yield f"{file} is needed again"


def _changed_params(job: Any, output: Any, workflow: Any) -> Iterator[str]:
    before = [ast.literal_eval(text) for text in workflow.persistence.params(output) or []]
    now = [value for value in job.non_derived_params if isinstance(value, str)]
    gone, come = [p for p in before if p not in now], [p for p in now if p not in before]
    yield from changed_keys(_settings(gone), _settings(come), workflow.config) if gone and come else ()
    for digest in come:
        if not _is_settings(digest):
            yield from _changed_code([value for value in gone if not _is_settings(value)], digest, workflow.persistence)


def _changed_code(before: list[str], now: str, persistence: Any) -> Iterator[str]:
    """Return which files of a step's code changed, where a record tells; before: the digests that are gone."""
    current = covered_files(now)
    recorded = [files for digest in before if (files := persistence.code_files(digest))]
    if not recorded:
        yield "its code changed"
        return
    old = max(recorded, key=lambda files: len(files.keys() & current.keys()))
    yield from (f"{name} changed" for name in sorted(old.keys() | current.keys()) if old.get(name) != current.get(name))


def _changed_inputs(job: Any, output: Any, workflow: Any) -> Iterator[str]:
    """Return which files it reads now or no longer, other than what other jobs make."""
    made_by_jobs = {str(file) for files in workflow.dag.dependencies[job].values() for file in files}
    before = set(workflow.persistence.input(output) or [])
    now = {str(file) for file in job.input if not file.is_ancient}
    yield from (f"{file} is read too" for file in sorted(now - before - made_by_jobs))
    yield from (
        f"{file} is no longer read" for file in sorted(before - now - workflow.persistence.journal.lines.keys())
    )


def _is_settings(value: str) -> bool:
    return value.startswith("{")


def _settings(params: list[str]) -> Mapping[str, Any]:
    """Return the one param of a job that holds settings."""
    return next((json.loads(value) for value in params if _is_settings(value)), {})


def _last_time(job: Any) -> float | None:
    """Return the seconds that a job took when it last ran; of steps without a benchmark nothing is known."""
    try:
        with open(str(job.benchmark), encoding="utf-8") as lines:
            return float(next(csv.DictReader(lines, delimiter="\t"))["s"])
    except (OSError, StopIteration, KeyError, ValueError):
        return None
