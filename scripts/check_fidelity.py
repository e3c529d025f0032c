"""Measure how faithful the fused model and each product are to base and adapter (snaketune.package.fidelity)."""

import json

from snaketune.package import fidelity
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    config = json.loads(snakemake.params.config)
    fidelity.run(
        fidelity.FidelityInputs(
            model=snakemake.input.model,
            adapter=snakemake.input.adapter,
            fused=snakemake.input.manifest,
            ggufs=snakemake.input.ggufs,
            rows=snakemake.input.rows,
            mlx=snakemake.input.mlx,
        ),
        fidelity.FidelitySettings(
            **config["package"]["fidelity"],
            min_gain_retained=config["package"]["min_gain_retained"],
            chat_template=config["model"]["chat_template"],
        ),
        snakemake.output.fidelity,
        threads=snakemake.threads,
    )
