"""Stops the run where a target or the forgetting limit is missed; snaketune.evaluate.thresholds."""

from snaketune.evaluate import thresholds
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    thresholds.check(snakemake.input.comparison, snakemake.output.passed)
