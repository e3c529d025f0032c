"""Patch of `DAG.update_needrun` (snakemake/dag.py): choose the jobs to run as if ancient() edges led to no job.

Reason: once a job is to run, Snakemake takes everything downstream of it as bound to run and checks neither its params
nor its files; later it drops what is reached by ancient() inputs alone. Such a job does not run in that call, however
stale it is, and the call ends with exit code 0. And where an ancient() input is missing, as a consumed temp() file is,
all jobs that were ever made from it run again together with the one that needs it.
Upstream: snakemake#4166. Ends with a release that fixes it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from snakemake.dag import DAG

original = DAG.update_needrun


def apply() -> None:
    DAG.update_needrun = ignore_ancient_edges


async def ignore_ancient_edges(dag: Any, *arguments: Any, **options: Any) -> None:
    """Run the original with the edges left out of `dag.depending` whose files are all ancient()."""
    edges, dag.depending = dag.depending, defaultdict(dict)
    for job, dependents in edges.items():
        dag.depending[job] = {
            dependent: files for dependent, files in dependents.items() if not all(file.is_ancient for file in files)
        }
    try:
        await original(dag, *arguments, **options)
    finally:
        dag.depending = edges
