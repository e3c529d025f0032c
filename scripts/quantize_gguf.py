"""Quantize the 16-bit GGUF file (snaketune.engines.llama_cpp.quantize)."""

from snaketune.engines.llama_cpp import quantize
from snaketune.runtime import step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    quantize.quantize(snakemake.input.gguf, snakemake.output.gguf, snakemake.wildcards.type, threads=snakemake.threads)
