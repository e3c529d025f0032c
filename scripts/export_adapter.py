"""Writes the adapter alone, for transformers and for llama.cpp; package/peft_export.py."""

from snaketune.package import peft_export
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    peft_export.export(
        model=snakemake.input.model,
        adapter=snakemake.input.adapter,
        peft=snakemake.output.peft,
        lora=snakemake.output.lora,
        threads=snakemake.threads,
    )
