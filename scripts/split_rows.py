"""Divides the kept rows into train, valid and test, whole clusters at a time (snaketune.data.splits)."""

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
