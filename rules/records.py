"""What is known of finished steps lies with the results, in results/.made, and goes where they go.

That is Snakemake's records (what each output was made from) and our journal (what each output is). An output that no
record speaks for, or that was changed since its step wrote it, is made again; a changed one is kept aside first.
"""

import os
import shutil
import sys
from pathlib import Path

from snakemake.jobs import Job, Reason
from snakemake.persistence import PersistenceBase
from snaketune.runtime import output_journal


def mend(results):
    """Keep Snakemake's records in a folder of results, and have it look at what they speak of; returns the journal."""
    if Path(results).exists():  # otherwise a real run does it (mended.py): looking and mistaken settings make nothing
        join_records(results)
    journal, changed = output_journal.Journal(Path(results, ".made", "outputs.jsonl")), set()
    PersistenceBase.has_metadata = records_hold(journal, changed)
    PersistenceBase.finished = recorded(journal)
    Job.remove_existing_output = keep_changed(changed, journal)
    Reason.__bool__, Reason.__str__ = counts, said
    return journal


def join_records(results):
    """`.snakemake/metadata` becomes a link to the records beside the results; what lay there before moves over."""
    kept = Path(results, ".made", "metadata")
    own = Path(".snakemake/metadata")
    kept.mkdir(parents=True, exist_ok=True)
    # without that folder Snakemake takes the records for those of an old version, and works through them
    own.with_name("incomplete").mkdir(parents=True, exist_ok=True)
    if not own.is_symlink():
        if own.is_dir():
            shutil.copytree(own, kept, dirs_exist_ok=True)
            shutil.rmtree(own)
        own.symlink_to(os.path.relpath(kept, own.parent))


def records_hold(journal, changed, has_metadata=PersistenceBase.has_metadata):
    """Snakemake asks whether a job's outputs have records: they must also be the files that were recorded."""

    def hold(persistence, job):
        there = [file for file in map(str, job.output) if Path(file).exists()]
        unknown = {file for file in there if not journal.knows(file)}
        changed.update(file for file in unknown if journal.changed(file))
        return not there or (has_metadata(persistence, job) and not unknown)

    return hold


def recorded(journal, finished=PersistenceBase.finished):
    """Snakemake's records of a finished job, and ours."""

    async def record(persistence, job):
        journal.add(map(str, job.output))
        await finished(persistence, job)

    return record


def keep_changed(changed, journal, remove=Job.remove_existing_output):
    """Before a step makes a file again that a person has changed, theirs gets another name."""

    async def kept(job):
        for file in changed.intersection(map(str, job.output)):
            aside = output_journal.keep_aside(file)
            print(f"snaketune: {file} was changed after its step wrote it; yours is now {aside}", file=sys.stderr)
        journal.forget(map(str, job.output))
        await remove(job)

    return kept


def counts(reason, counts_for_snakemake=Reason.__bool__):
    """Snakemake notes that an output has no record, and trusts it all the same."""
    return counts_for_snakemake(reason) or bool(reason.no_metadata and not reason.finished)


def said(reason, says=Reason.__str__):
    """Why a step runs."""
    unrecorded = reason.no_metadata and not reason.finished
    return "its outputs are not what a step is recorded to have left there" if unrecorded else says(reason)
