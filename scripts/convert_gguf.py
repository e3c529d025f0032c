"""Makes the 16-bit GGUF of the fused model; package/converting.py."""

from pathlib import Path

from snaketune import step
from snaketune.package import converting

with step.running(snakemake.log[0]):
    target = Path(snakemake.output.gguf)
    converting.convert(snakemake.input.fused, target, name=target.stem.removesuffix("-f16"), threads=snakemake.threads)
