"""Writes run.json, what the run was made of; see snaketune.provenance."""

from snaketune import provenance, step

with step.running(snakemake.log[0]):
    provenance.run(
        config=snakemake.input.config,
        sources=snakemake.input.sources,
        model=snakemake.input.model,
        fused=snakemake.input.get("fused"),
        products=snakemake.input.get("products", []),
        record=snakemake.output.record,
    )
