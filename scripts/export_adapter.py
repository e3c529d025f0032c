"""Write the adapter alone, for transformers (PEFT) and for llama.cpp (snaketune.package.gguf_conversion)."""

from snaketune.package import gguf_conversion
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    gguf_conversion.export_adapter(
        model=snakemake.input.model,
        adapter=snakemake.input.adapter,
        peft=snakemake.output.peft,
        lora=snakemake.output.lora,
        threads=snakemake.threads,
    )
