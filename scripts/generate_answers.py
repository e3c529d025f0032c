"""Answers and scores the test rows with one artefact; snaketune.evaluate.predict."""

import json

from snaketune.evaluate import predict
from snaketune.evaluate.variants import ModelVariant
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    predict.run(
        ModelVariant(
            snakemake.wildcards.variant,
            model=snakemake.input.model,
            adapter=snakemake.input.get("adapter"),
            fused=snakemake.input.get("fused"),
            gguf=snakemake.input.get("gguf"),
        ),
        rows=snakemake.input.rows,
        train=snakemake.input.get("train"),
        general_rows=snakemake.input.get("general"),
        config=json.loads(snakemake.params.config),
        predictions=snakemake.output.predictions,
        general=snakemake.output.get("general"),
        prompts=snakemake.output.get("prompts"),
        threads=snakemake.threads,
    )
