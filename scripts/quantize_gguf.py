"""Quantize the 16-bit GGUF file (snaketune.engines.llama_cpp.quantize)."""

from snaketune.engines.llama_cpp import quantize
from snaketune.runtime import events, progress, step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    quantize.quantize(snakemake.input.gguf, snakemake.output.gguf, snakemake.wildcards.type, threads=snakemake.threads)
    events.report_result(
        f"gguf-{snakemake.wildcards.type} {progress.format_bytes(progress.size_of(snakemake.output.gguf))}"
    )
