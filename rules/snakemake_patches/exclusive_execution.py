"""Patch of `workflow.execute` (snakemake/workflow.py), of the one workflow object: one real run at a time in a folder.

Reason: Snakemake's own locks name files and no process, so a killed run looks like a live one until `--unlock`, and the
end of any run removes the locks of all others. The run holds a lock of ours instead, which the kernel frees. It does so
before its jobs are chosen, and the hook `onstart` comes after that. profiles/default switches Snakemake's locks off.
Upstream: not reported yet. Ends with locks that know their process, or with a hook before the jobs are chosen.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake_interface_executor_plugins.settings import ExecMode
from snaketune import files
from snaketune.errors import UserError
from snaketune.runtime import locks, step
from snaketune.runtime.locks import OutputJournal

from snakemake_patches.hooks import INTERRUPTED


def apply(workflow: Any, results: Path, run: str, journal: OutputJournal) -> None:
    execute = workflow.execute

    def execute_exclusively(executor_plugin: Any, **options: Any) -> Any:
        if executor_plugin.common_settings.dryrun_exec or workflow.exec_mode != ExecMode.DEFAULT:
            return execute(executor_plugin=executor_plugin, **options)
        try:
            with locks.hold_lock(results / ".lock", f"running snakemake for {run}") as dead:
                if dead:
                    print(f"snaketune: an earlier run ({dead}) was killed; going on from there", file=sys.stderr)
                locks.wait_until_free(step.all_locks(results))  # jobs may outlive their Snakemake
                files.remove_abandoned(results)
                try:
                    return execute(executor_plugin=executor_plugin, **options)
                except WorkflowError:
                    if INTERRUPTED.is_set():
                        _tell_logger("stopped")
                        raise SystemExit(128 + signal.SIGINT) from None
                    raise
                finally:
                    journal.save_refreshed_mtimes()
        except UserError as error:
            print(f"snaketune: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except KeyboardInterrupt:  # once jobs run, Snakemake takes it itself
            _tell_logger("stopped before any step ran")
            raise SystemExit(128 + signal.SIGINT) from None

    workflow.execute = execute_exclusively


def _tell_logger(text: str) -> None:
    """Say that a person stopped the run, to the plugin as a fact: where no job ran, no job's end tells it."""
    logger.error(f"snaketune: {text}", extra={"snaketune_stopped": True})
