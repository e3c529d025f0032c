"""Patch of Snakemake's logger: in a dry run, a filter puts one table in the place of what is said of each job.

Reason: `snakemake -n` prints ten lines for each job, and of a changed setting two JSON texts; the one thing that a
person asks, which steps run and why, is nowhere. The table goes where the counts of jobs stood, as the message of the
same log event. `snakemake -n -p` shows Snakemake's own text.
Upstream: dry runs have no output of their own among the log events. Ends with one, in a logger plugin of ours.
"""

from __future__ import annotations

import logging
import shutil
import sys
from typing import Any

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_patches.rerun_reasons import dry_run_table

MIN_WIDTH, PIPE_WIDTH = 60, 120  # characters of a line; where there is no terminal, the second
BEGINNINGS = ("Assuming unrestricted shared filesystem", "Building DAG of jobs")
DRY_RUN = {"-n", "--dry-run", "--dryrun"}
ENDINGS = (
    "This was a dry-run",
    "Some jobs were triggered by",
    "Rules with provenance triggered",
    "Reasons:",
    "Would remove",
)


def apply(workflow: Any, heading: str) -> None:
    """Install the filter; heading: the first line, which names the run and its configuration."""
    for known in [known for known in logger.filters if isinstance(known, DryRunTable)]:
        logger.removeFilter(known)
    logger.addFilter(DryRunTable(workflow, heading))


class DryRunTable(logging.Filter):
    """Turns the first counts of jobs of a dry run into the table, and drops what is said of jobs after it."""

    def __init__(self, workflow: Any, heading: str) -> None:
        super().__init__()
        self.workflow = workflow
        self.heading = heading
        self.is_shown = False

    def filter(self, record: logging.LogRecord) -> bool:
        settings = self.workflow.output_settings
        is_dry = self.workflow.dryrun or DRY_RUN.intersection(sys.argv)  # at first the workflow does not know yet
        if not is_dry or settings.printshellcmds or settings.verbose:
            return True
        event = getattr(record, "event", None)
        if event == LogEvent.RUN_INFO and not self.is_shown:
            self.is_shown = True
            record.msg, record.args = f"{self.heading}: {dry_run_table(self.workflow, _width())}", None
            return True
        if not self.is_shown:
            return not str(record.msg).startswith(BEGINNINGS)
        is_of_jobs = event in (LogEvent.RUN_INFO, LogEvent.JOB_INFO, LogEvent.JOB_STARTED, LogEvent.SHELLCMD)
        return not is_of_jobs and not str(record.msg).startswith(ENDINGS)


def _width() -> int:
    return max(MIN_WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else PIPE_WIDTH
