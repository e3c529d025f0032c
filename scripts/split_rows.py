"""Assign whole clusters of related rows to train, valid and test (snaketune.data.splits)."""

import json

from snaketune.data import splits
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    splits.run(
        config=json.loads(snakemake.params.config),
        records=snakemake.input.records,
        train=snakemake.output.train,
        valid=snakemake.output.valid,
        test=snakemake.output.test,
        split=snakemake.output.split,
    )
