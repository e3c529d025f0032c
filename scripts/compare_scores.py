"""Compare the variants with each other by paired tests (snaketune.evaluate.compare)."""

import msgspec
from snaketune.evaluate import compare
from snaketune.evaluate.step_config import ComparisonConfig
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    compare.run(
        predictions=snakemake.input.predictions,
        scores=snakemake.input.scores,
        general=snakemake.input.get("general", []),
        comparison=snakemake.output.comparison,
        table=snakemake.output.table,
        config=msgspec.json.decode(snakemake.params.config, type=ComparisonConfig),
    )
