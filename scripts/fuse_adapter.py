"""Merge the adapter into its base, in 16 bits (snaketune.package.fused_model)."""

import json

from snaketune.package import fused_model
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    model = json.loads(snakemake.params.config)["model"]
    fused_model.fuse_model(
        snakemake.input.model,
        snakemake.input.adapter,
        snakemake.output.fused,
        snakemake.output.manifest,
        chat_template=model["chat_template"],
        dtype=model["dtype"],
    )
