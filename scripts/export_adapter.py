"""Writes the adapter alone, for transformers and for llama.cpp; package/peft.py."""

from snaketune import step
from snaketune.package import peft

with step.running(snakemake.log[0]):
    peft.export(
        model=snakemake.input.model,
        adapter=snakemake.input.adapter,
        peft=snakemake.output.peft,
        lora=snakemake.output.lora,
        threads=snakemake.threads,
    )
