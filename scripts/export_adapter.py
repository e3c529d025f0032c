"""Write the adapter alone, for transformers (PEFT) and for llama.cpp (snaketune.package.fused_model)."""

from snaketune.package import fused_model
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    fused_model.export_adapter(
        model=snakemake.input.model,
        adapter=snakemake.input.adapter,
        peft=snakemake.output.peft,
        lora=snakemake.output.lora,
        threads=snakemake.threads,
    )
