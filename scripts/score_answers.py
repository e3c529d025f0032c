"""Score one variant's answers, with confidence intervals (snaketune.evaluate.score)."""

import msgspec
from snaketune.evaluate import score
from snaketune.evaluate.step_config import ScoringConfig
from snaketune.runtime import step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    score.run(
        predictions=snakemake.input.predictions,
        scores=snakemake.output.scores,
        config=msgspec.json.decode(snakemake.params.config, type=ScoringConfig),
    )
