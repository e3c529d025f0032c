"""Compares the artefacts with each other, and says what may be concluded; snaketune.evaluate.comparing."""

import json

from snaketune import step
from snaketune.evaluate import comparing

with step.running(snakemake.log[0]):
    comparing.run(
        predictions=snakemake.input.predictions,
        scores=snakemake.input.scores,
        general=snakemake.input.get("general", []),
        comparison=snakemake.output.comparison,
        config=json.loads(snakemake.params.config),
    )
