"""A pool of processes that have imported Snakemake, for the tests that start it many times."""

import os
from collections.abc import Iterator

import pytest
from dry_runs import DryRuns


@pytest.fixture(scope="session")
def dry_runs() -> Iterator[DryRuns]:
    """Runs `snakemake` without the second that its start takes; tests of signals and terminals start it themselves."""
    pool = DryRuns(os.cpu_count() or 1)
    yield pool
    pool.close()
