"""Write the adapter alone, for transformers (PEFT) and for llama.cpp (snaketune.package.peft_export)."""

from snaketune.package import peft_export
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    peft_export.export_adapter(
        model=snakemake.input.model,
        adapter=snakemake.input.adapter,
        peft=snakemake.output.peft,
        lora=snakemake.output.lora,
        threads=snakemake.threads,
    )
