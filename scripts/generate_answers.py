"""Generate answers with one variant, and score the references (snaketune.evaluate.predict)."""

import msgspec
from snaketune.evaluate import predict
from snaketune.evaluate.step_config import PredictionConfig
from snaketune.evaluate.variants import ModelVariant
from snaketune.plan import answering
from snaketune.runtime import step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    predict.run(
        ModelVariant(
            snakemake.wildcards.variant,
            model=snakemake.input.model,
            adapter=snakemake.input.get("adapter"),
            fused=snakemake.input.get("fused"),
            gguf=snakemake.input.get("gguf"),
        ),
        predict.PredictionInputs(
            rows=snakemake.input.rows, general=snakemake.input.get("general"), train=snakemake.input.get("train")
        ),
        predict.PredictionOutputs(
            predictions=snakemake.output.predictions,
            general=snakemake.output.get("general"),
            prompts=snakemake.output.get("prompts"),
        ),
        answering.within_hours(
            msgspec.json.decode(snakemake.params.config, type=PredictionConfig),
            snakemake.input.decision,
            snakemake.input.get("general"),
        ),
        threads=snakemake.threads,
    )
