"""Makes a quantized copy of a base model; snaketune.mlx_engine.quantizing."""

import json

from snaketune import step

with step.running(snakemake.log[0]):
    from snaketune.mlx_engine.quantizing import quantize_base

    quantize_base(
        snakemake.input.model,
        json.loads(snakemake.params.config)["model"],
        snakemake.output.folder,
        snakemake.output.manifest,
    )
