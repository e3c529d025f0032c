"""Score one variant's answers, with confidence intervals (snaketune.evaluate.score)."""

import json

from snaketune.evaluate import score
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    score.run(
        predictions=snakemake.input.predictions,
        scores=snakemake.output.scores,
        config=json.loads(snakemake.params.config),
    )
