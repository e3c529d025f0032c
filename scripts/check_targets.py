"""Stops the run where a target or the forgetting limit is missed; snaketune.evaluate.targets."""

from snaketune import step
from snaketune.evaluate import targets

with step.running(snakemake.log[0]):
    targets.check(snakemake.input.comparison, snakemake.output.passed)
