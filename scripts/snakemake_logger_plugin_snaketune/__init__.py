"""Logger plugin of snaketune: takes what Snakemake says about its jobs, and shows stages, results and messages instead.

Snakemake finds it by its name, `snaketune` (profiles/default), as the set-up puts this folder's parent on the path of
.venv; its interface is that of snakemake-interface-logger-plugins, which reads the types of the settings, so that
annotations are not postponed here. Snakemake imports it at each start: what is not
needed before jobs run is imported then.
"""

import logging
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

if TYPE_CHECKING:
    from snakemake_logger_plugin_snaketune.run_log import RunLog


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Options of the plugin on the command line; `off` is --logger-snaketune-off."""

    off: bool = field(
        default=False,
        metadata={"help": "Show what Snakemake itself says instead of snaketune's lines for stages and steps."},
    )


class LogHandler(LogHandlerBase):
    """Hands Snakemake's records to a RunLog, which is made once rules/common.smk has said which run this is.

    Nothing of the library is imported before: the one beside the Snakefile must be found first, not another copy.
    """

    def __post_init__(self) -> None:
        wanted = self.common_settings
        logging.raiseExceptions = False  # on a full disk each line that a log cannot take would cost a traceback
        self.draws = not (getattr(self.settings, "off", False) or wanted.dryrun or wanted.verbose or wanted.debug_dag)
        self._log: RunLog | None = None
        self._early: list[str] = []  # remarks from before it is known whether anything will run
        if self.draws:
            os.environ["SNAKETUNE_DISPLAY"] = "1"  # snaketune.runtime.events; the processes of the steps inherit it
        else:
            os.environ.pop("SNAKETUNE_DISPLAY", None)

    @property
    def writes_to_stream(self) -> bool:
        """Whether this takes the place of Snakemake's own output."""
        return bool(self.draws)

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record; a fault of the display must not end the run."""
        try:
            if self._log is None and hasattr(record, "snaketune_run"):
                from snakemake_logger_plugin_snaketune.run_log import RunLog

                self._log = RunLog(sys.stderr, draws=self.draws, dry_run=self.common_settings.dryrun)
            if self._log is not None:
                self._log.take(record)
            elif record.levelno >= logging.WARNING:
                self._print(record.getMessage())
            else:
                self._early.append(record.getMessage())
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Say what came of the run."""
        log, self._log = self._log, None
        if log is not None:
            log.close()
        else:
            for text in self._early:
                self._print(text)
        self._early.clear()
        super().close()

    def _print(self, text: str) -> None:
        if self.draws:
            print(text, file=sys.stderr)
