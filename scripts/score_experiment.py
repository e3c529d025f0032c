"""Generate and score answers to validation rows with one adapter (snaketune.evaluate.predict)."""

import json

import msgspec
from snaketune.runtime import step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    from snaketune.evaluate import predict, score
    from snaketune.evaluate.step_config import PredictionConfig, ScoringConfig
    from snaketune.evaluate.variants import ModelVariant
    from snaketune.plan import answering

    config = json.loads(snakemake.params.config)
    predict.run(
        ModelVariant("adapter", model=snakemake.input.model, adapter=snakemake.input.adapter),
        predict.PredictionInputs(rows=snakemake.input.rows),
        predict.PredictionOutputs(predictions=snakemake.output.predictions),
        answering.within_hours(msgspec.convert(config["predict"], PredictionConfig), snakemake.input.decision),
        threads=snakemake.threads,
    )
    score.run(
        predictions=snakemake.output.predictions,
        scores=snakemake.output.scores,
        config=msgspec.convert(config["score"], ScoringConfig),
    )
