"""Makes a quantized copy of a base model; snaketune.engines.mlx.quantize."""

import json

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.engines.mlx.quantize import quantize_base

    quantize_base(
        snakemake.input.model,
        json.loads(snakemake.params.config)["model"],
        snakemake.output.folder,
        snakemake.output.manifest,
    )
