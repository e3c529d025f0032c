"""Merges the adapter into its base, in 16 bits; package/fused.py."""

import json

from snaketune import step
from snaketune.package import fused

with step.running(snakemake.log[0]):
    fused.make(
        model=snakemake.input.model,
        adapter=snakemake.input.adapter,
        config=json.loads(snakemake.params.config),
        folder=snakemake.output.fused,
        manifest=snakemake.output.manifest,
    )
