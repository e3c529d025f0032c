"""Compare the variants with each other by paired tests (snaketune.evaluate.compare)."""

import json

from snaketune.evaluate import compare
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    compare.run(
        predictions=snakemake.input.predictions,
        scores=snakemake.input.scores,
        general=snakemake.input.get("general", []),
        comparison=snakemake.output.comparison,
        table=snakemake.output.table,
        config=json.loads(snakemake.params.config),
    )
