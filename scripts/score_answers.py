"""Turns one artefact's answers into numbers with confidence intervals; snaketune.evaluate.scoring."""

import json

from snaketune import step
from snaketune.evaluate import scoring

with step.running(snakemake.log[0]):
    scoring.run(
        predictions=snakemake.input.predictions,
        scores=snakemake.output.scores,
        config=json.loads(snakemake.params.config),
    )
