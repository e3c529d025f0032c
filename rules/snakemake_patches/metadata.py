"""Patch of `snakemake.workflow.FilePersistence` (the class of `workflow.persistence`): a subclass takes its place.

Reason: (1) Snakemake keeps its records of finished jobs in `.snakemake` of the working directory, so results that are
copied or moved lose them; here they lie in `results/.made`. (2) It records what an output was made from and not what it
is, so an output that was edited, cut short or put there by hand counts as finished; here each output must also be the
one that the journal describes. (3) Inputs behind ancient() are permissions here: which file gives one is no reason to
run again.
Upstream: there is no plugin interface for persistence, and no request for one yet. Ends with such an interface.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import snakemake.workflow
from snakemake.jobs import Reason
from snakemake.persistence.file import FilePersistence
from snaketune.runtime.locks import OutputJournal


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
        await super().finished(job)

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
