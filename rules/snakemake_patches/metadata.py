"""Patch of `snakemake.workflow.FilePersistence` (the class of `workflow.persistence`): a subclass takes its place.

Reason: (1) Snakemake keeps its records of finished jobs in `.snakemake` of the working directory, so results that are
copied or moved lose them; here they lie in `results/.made`. (2) It records what an output was made from and not what it
is, so an output that was edited, cut short or put there by hand counts as finished; here each output must also be the
one that the journal describes. (3) Inputs behind ancient() are permissions here: which file gives one is no reason to
run again. (4) `--list-changes params` names a file of each job whether its params changed or not.
Upstream: there is no plugin interface for persistence, and no request for one yet. Ends with such an interface.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import snakemake.workflow
from snakemake.jobs import Reason
from snakemake.persistence import NO_PARAMS_CHANGE
from snakemake.persistence.file import FilePersistence
from snaketune.files import write_text
from snaketune.runtime.code_digest import covered_files
from snaketune.runtime.locks import OutputJournal

DIGEST = re.compile("[0-9a-f]{16}")  # of code, among the params of a job


def apply(journal: OutputJournal, records: Path) -> None:
    snakemake.workflow.FilePersistence = functools.partial(JournalPersistence, journal, records)


class JournalPersistence(FilePersistence):
    """Snakemake's records in a folder beside the results, and with each of them a line of the journal of outputs."""

    def __init__(self, journal: OutputJournal, records: Path, path: Path | None = None, **options: Any) -> None:
        super().__init__(path=path, **options)
        self.journal = journal
        if path is None:  # otherwise a job on another machine, whose records nobody reads
            self._metadata_path = str(records)

    def _fetch_max_len(self, _subject: str) -> int:
        """Return the longest file name; of the folder `.snakemake`, since that of the records may not exist yet."""
        return super()._fetch_max_len(self.path)

    def has_metadata(self, job: Any) -> bool:
        """Return whether all outputs that exist have a record and are what it speaks of."""
        existing = [file for file in map(str, job.output) if Path(file).exists()]
        if not existing or (super().has_metadata(job) and all(map(self.journal.is_unmodified, existing))):
            return True
        self.dag.reason(job).__class__ = UnrecordedOutput
        return False

    def started(self, job: Any, external_jobid: str | None = None) -> None:
        super().started(job, external_jobid)
        self.journal.mark_in_progress(map(str, job.output))

    async def finished(self, job: Any) -> None:
        self.journal.add(map(str, job.output))
        self._record_code(job)
        await super().finished(job)

    def params_changed(self, job: Any, file: Any = None) -> Any:
        """Return what changed, or nothing at all: of unchanged params Snakemake's answer still names a file."""
        return super().params_changed(job, file=file) or NO_PARAMS_CHANGE

    @property
    def _serialize_param(self) -> Callable[[Any], Any]:
        """Return what writes a param down: no param here is a table, and pandas takes half a second to import."""
        return self._serialize_param_builtin

    def code_files(self, digest: str) -> dict[str, str] | None:
        """Return the files that a digest of a step's code covered, as recorded when a step with it finished."""
        try:
            return json.loads(self._code_record(digest).read_bytes())
        except (OSError, ValueError):
            return None

    def _record_code(self, job: Any) -> None:
        """Write down once which files a job's digest of code covers, so that a later dry run names the changed one."""
        for digest in filter(DIGEST.fullmatch, filter(lambda param: isinstance(param, str), job.non_derived_params)):
            record = self._code_record(digest)
            if not record.exists() and (covered := covered_files(digest)):
                with contextlib.suppress(OSError):
                    write_text(record, json.dumps(covered, sort_keys=True))

    def _code_record(self, digest: str) -> Path:
        return Path(self._metadata_path).with_name("code") / f"{digest}.json"

    def _input(self, job: Any) -> list[str]:
        """Return the inputs that are compared with those of the last time."""
        ancient = {str(file) for file in job.input if file.is_ancient}
        return [name for name in super()._input(job) if name not in ancient]


class UnrecordedOutput(Reason):
    """Why a job runs whose outputs nothing speaks for: Snakemake itself notes that (`no_metadata`) and trusts them."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return super().__bool__() or (self.no_metadata and not self.finished)

    def __str__(self) -> str:
        if self.no_metadata and not self.finished:
            return "Output files are not those that a finished job is recorded to have left"
        return super().__str__()
