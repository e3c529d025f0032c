"""Compare all experiments on the test rows (snaketune.evaluate.bake_off)."""

import msgspec
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.evaluate import bake_off

    config = msgspec.json.decode(snakemake.params.config, type=bake_off.BakeOffConfig)
    given = snakemake.input
    bake_off.run(
        config,
        bake_off.answers_by_name(given.predictions, given.scores, given.zero_predictions, given.zero_scores),
        bake_off.trainings_by_name(given.summaries, given.adapters),
        snakemake.output.comparison,
    )
