"""Looks for rows that stand on two sides of the split, and lists them (snaketune.data.leaks)."""

import json

from snaketune import step
from snaketune.data import leaks

with step.running(snakemake.log[0]):
    leaks.run(
        config=json.loads(snakemake.params.config),
        train=snakemake.input.train,
        valid=snakemake.input.valid,
        test=snakemake.input.test,
        leaks=snakemake.output.leaks,
    )
