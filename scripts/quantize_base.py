"""Quantize a base, for QLoRA (snaketune.engines)."""

import json

from snaketune.runtime import step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    from snaketune.engines import get_quantizer

    get_quantizer().quantize_base(
        snakemake.input.model,
        json.loads(snakemake.params.config)["model"],
        snakemake.output.folder,
        snakemake.output.manifest,
    )
