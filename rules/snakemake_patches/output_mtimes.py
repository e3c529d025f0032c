"""Patch of `DAG.check_output_mtime` (snakemake/dag.py): outputs get a later time than their inputs before it looks.

Reason: where the clock went back after the inputs were written, Snakemake takes the finished job as failed and removes
its outputs, at each start until the clock has caught up.
Upstream: not reported yet. Ends with a release that dates such outputs, or only warns.
"""

from __future__ import annotations

from typing import Any

from snakemake.dag import DAG

STEP = 0.001  # seconds; the finest difference that all file systems keep

original = DAG.check_output_mtime


def apply() -> None:
    DAG.check_output_mtime = bump_output_mtimes


async def bump_output_mtimes(dag: Any, job: Any, expanded_output: list[Any]) -> None:
    """Date outputs just after the newest input where they are older, then run the original."""
    newest = max([await _mtime(file) for file in job.input if await file.exists_local()], default=0.0)
    for output in expanded_output:
        if await output.exists_local() and await _mtime(output) < newest:
            output.touch((newest + STEP, newest + STEP))
    await original(dag, job, expanded_output)


async def _mtime(file: Any) -> float:
    return (await file.mtime_uncached(skip_storage=True)).local()
