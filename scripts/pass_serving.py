"""Stops the run if the recommended GGUF could not be served; package/serving.py."""

from snaketune import files
from snaketune.package import serving
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    files.write_text(snakemake.output.passed, serving.require(snakemake.input.served))
