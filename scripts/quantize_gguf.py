"""Makes a smaller GGUF of the 16-bit one; llama_engine/quantizing.py."""

from snaketune import step
from snaketune.llama_engine import quantizing

with step.running(snakemake.log[0]):
    quantizing.quantize(
        snakemake.input.gguf, snakemake.output.gguf, snakemake.wildcards.type, threads=snakemake.threads
    )
