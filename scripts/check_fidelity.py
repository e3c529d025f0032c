"""Measure how faithful the fused model and each GGUF file are to base and adapter (snaketune.package.fidelity)."""

import json

from snaketune.package import fidelity
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    fidelity.run(
        model=snakemake.input.model,
        adapter=snakemake.input.adapter,
        manifest=snakemake.input.manifest,
        ggufs=snakemake.input.ggufs,
        rows=snakemake.input.rows,
        config=json.loads(snakemake.params.config),
        fidelity=snakemake.output.fidelity,
        threads=snakemake.threads,
    )
