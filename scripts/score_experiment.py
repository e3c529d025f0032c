"""Answers validation rows with an experiment's adapter and scores them; snaketune.evaluate.predict, .scoring."""

import json

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.evaluate import predict, score
    from snaketune.evaluate.variants import ModelVariant

    config = json.loads(snakemake.params.config)
    predict.run(
        ModelVariant("adapter", model=snakemake.input.model, adapter=snakemake.input.adapter),
        rows=snakemake.input.rows,
        config=config["answering"],
        predictions=snakemake.output.predictions,
        threads=snakemake.threads,
    )
    score.run(predictions=snakemake.output.predictions, scores=snakemake.output.scores, config=config["scoring"])
