"""Open the sealed test rows for the chosen adapter (snaketune.evaluate.seal)."""

from pathlib import Path

from snaketune.evaluate import seal
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    run = Path(snakemake.output.use).parents[1]
    seal.open_test_rows(snakemake.input.rows, snakemake.input.adapter, run, snakemake.output.use)
