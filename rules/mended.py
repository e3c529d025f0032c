"""What this workflow mends in Snakemake 9.27.

Jobs that it forgets, locks that name no process, results that a clock gone back costs, words that hide ours.
"""

import logging
import re
import shutil
import signal
import sys
from collections import defaultdict
from pathlib import Path

import records
from snakemake.dag import DAG
from snakemake.logging import logger
from snakemake.persistence import PersistenceBase
from snakemake_interface_executor_plugins.settings import ExecMode
from snaketune import files
from snaketune.errors import UserError
from snaketune.runtime import locks, step

FAILED = re.compile(r"CalledProcessError in file .*\.(\w+)\.py' (?:returned non-zero|died with <Signals\.(\w+):)", re.S)


def mend(workflow, results, run, journal):
    """Mend them all, for one workflow whose results lie in a folder; run: its run's name, journal: of what it made."""
    DAG.update_needrun = without_ancient(DAG.update_needrun)
    DAG.check_output_mtime = no_older_than_inputs
    PersistenceBase._input = inputs_but_for_ancient
    workflow.execute = alone(workflow, results, run, journal)
    logger.addFilter(without_echo)
    logging.raiseExceptions = False  # on a full disk each line that its log cannot take would cost a traceback


def without_ancient(update_needrun):
    """Snakemake's choice of the jobs to run, made as if inputs that are all ancient() led to no job downstream.

    Where a job runs, Snakemake 9.27 takes everything downstream of it as bound to run, and looks no further at their
    params and missing files; then it leaves out what is reached by ancient() inputs alone. Such a job never runs in
    that call, however stale it is, and the run ends well without it. And an ancient() input that is gone, as a temp()
    file is, makes all that were ever made of it run again with the one that needs it now.
    """

    async def chosen(dag, *arguments, **options):
        whole, dag.depending = dag.depending, defaultdict(dict)
        for job, others in whole.items():
            passing = ((other, inputs) for other, inputs in others.items() if not all(it.is_ancient for it in inputs))
            dag.depending[job] = dict(passing)
        try:
            return await update_needrun(dag, *arguments, **options)
        finally:
            dag.depending = whole

    return chosen


def inputs_but_for_ancient(_, job):
    """The inputs by which Snakemake sees that a job has others than it had, without those behind ancient().

    Those are permissions: content and age of theirs make no job stale, and which file gives one does neither.
    """
    return sorted(str(file) for file in job.input if not file.is_ancient)


async def no_older_than_inputs(_dag, job, outputs):
    """Outputs are dated after their inputs, also where the clock went back since those were written.

    Snakemake takes such a job as failed and removes its outputs, for days if need be.
    """
    inputs = [await file.mtime_uncached(skip_storage=True) for file in job.input if await file.exists_local()]
    newest = max((when.local() for when in inputs), default=0.0)
    for output in outputs:
        if await output.exists_local() and (await output.mtime_uncached(skip_storage=True)).local() < newest:
            output.touch((newest + 0.001, newest + 0.001))


def alone(workflow, results, run, journal):
    """Snakemake's execution of the workflow, for one real run at a time in a folder.

    Snakemake's own locks name files and no process: what is left of a killed run looks like a live one, and the end of
    any run removes those of all others. So a run holds a lock of our own, from before its jobs are planned; and jobs
    that outlived their Snakemake are waited for.
    """
    execute = workflow.execute

    def held(executor_plugin, **rest):
        real = not executor_plugin.common_settings.dryrun_exec and workflow.execution_settings.lock
        if not real or workflow.exec_mode != ExecMode.DEFAULT:
            return execute(executor_plugin=executor_plugin, **rest)
        try:
            with locks.holding(Path(results, ".lock"), f"running snakemake for {run}") as dead:
                locks.wait(step.locks_in(results))
                files.remove_abandoned(results)
                clear(dead)
                records.join_records(results)
                try:
                    return execute(executor_plugin=executor_plugin, **rest)
                finally:
                    journal.settle()
        except UserError as error:
            print(f"snaketune: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except KeyboardInterrupt:  # Snakemake takes it itself once jobs run
            print("\nsnaketune: stopped before any job ran", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None

    return held


def clear(dead):
    """Remove Snakemake's locks: nobody else runs here, so a killed run left them; dead: who that was, if known."""
    left = Path(".snakemake/locks")
    if dead or any(left.glob("*")):
        who = f" ({dead})" if dead else ""
        print(f"snaketune: an earlier run{who} was killed; its locks are removed", file=sys.stderr)
        shutil.rmtree(left, ignore_errors=True)


def without_echo(record: logging.LogRecord) -> bool:
    """Leave out what Snakemake says on top of a step's own message; say what killed a step that could say nothing."""
    words = record.getMessage()
    failed = FAILED.search(words)
    if failed and failed[2] and failed[2] not in (signal.SIGINT.name, signal.SIGTERM.name):
        record.msg, record.args = f"snaketune: {failed[1]} was ended by {failed[2]}. {why(failed[2])}", None
        return True
    return not failed and "At least one job did not complete successfully." not in words


def why(name):
    """What most often sends a signal, and what to do then."""
    if name == signal.SIGKILL.name:
        return (
            "If nobody did that, the system was out of memory: see plan.json for what is needed, close other programs, "
            "and run snakemake again."
        )
    return "That is a defect of a library or of the machine; run snakemake again, and report it if it stays."
