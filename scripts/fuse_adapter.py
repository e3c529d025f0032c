"""Merge the adapter into its base, in 16 bits (snaketune.package.fused_model)."""

import json

from snaketune.package import fused_model
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    fused_model.make(
        model=snakemake.input.model,
        adapter=snakemake.input.adapter,
        config=json.loads(snakemake.params.config),
        folder=snakemake.output.fused,
        manifest=snakemake.output.manifest,
    )
