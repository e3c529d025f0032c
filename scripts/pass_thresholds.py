"""Stop the run if a threshold or the limit of forgetting is missed (snaketune.evaluate.thresholds)."""

from snaketune.evaluate import thresholds
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    thresholds.check(snakemake.input.comparison, snakemake.output.passed)
