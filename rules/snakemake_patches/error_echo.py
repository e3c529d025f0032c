"""Patch of Snakemake's logger: a filter drops the exceptions that it prints on top of a step's own message.

Reason: a failed step has said what is wrong; Snakemake adds the text of a RuleException with a CalledProcessError and
of a WorkflowError, 20 lines that hide it. Of a step that a signal killed, and that could say nothing, it tells what
that means. It is told apart by log events and exceptions, not by words.
Upstream: `quiet` has no such part. Ends with it, or with a logger plugin of ours.
"""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

SCRIPT = re.compile(r"/scripts/tmp\w+\.(\w+)\.py\b")  # where Snakemake puts a step's script before it runs it


def apply() -> None:
    if not any(isinstance(known, ErrorEcho) for known in logger.filters):
        logger.addFilter(ErrorEcho())
    logging.raiseExceptions = False  # on a full disk each line that a log cannot take would cost a traceback


class ErrorEcho(logging.Filter):
    """Drops the errors that repeat in Snakemake's terms what a step or the list of failed jobs has said."""

    jobs_failed = False  # set by the hook `onerror`, after which Snakemake raises its last WorkflowError

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "event", None) != LogEvent.ERROR:
            return True
        if getattr(record, "exception", None) == "WorkflowError" and ErrorEcho.jobs_failed:
            return False
        failed = failed_step(sys.exception())
        if failed is None:
            return True
        name, code = failed
        if code >= 0 or -code in (signal.SIGINT, signal.SIGTERM):
            return False
        killer = signal.Signals(-code)
        record.msg, record.args = f"snaketune: {name} was ended by {killer.name}. {signal_hint(killer)}", None
        return True


def failed_step(error: BaseException | None) -> tuple[str, int] | None:
    """Return the name and exit code of the step whose process failed, if that is what an exception comes from."""
    while error is not None and not isinstance(error, subprocess.CalledProcessError):
        error = error.__cause__ or error.__context__
    if error is None or not (script := SCRIPT.search(str(error.cmd))):
        return None
    return script[1], error.returncode


def signal_hint(killer: signal.Signals) -> str:
    """Say what most often sends a signal, and what to do then."""
    if killer == signal.SIGKILL:
        return (
            "If nobody did that, the system was out of memory: see plan.json for what is needed, close other programs, "
            "and run snakemake again."
        )
    return "That is a defect of a library or of the machine; run snakemake again, and report it if it stays."
