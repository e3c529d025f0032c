"""Open the sealed test rows for the chosen adapter (snaketune.evaluate.seal)."""

from snaketune.evaluate import seal
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    seal.open_test_rows(snakemake.input.rows, snakemake.input.adapter, snakemake.params.folder, snakemake.output.use)
