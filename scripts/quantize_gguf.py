"""Makes a smaller GGUF of the 16-bit one; engines/llama_cpp/quantize.py."""

from snaketune.engines.llama_cpp import quantize
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    quantize.quantize(snakemake.input.gguf, snakemake.output.gguf, snakemake.wildcards.type, threads=snakemake.threads)
