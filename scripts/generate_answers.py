"""Answers and scores the test rows with one artefact; snaketune.evaluate.answering."""

import json

from snaketune import step
from snaketune.evaluate import answering

with step.running(snakemake.log[0]):
    answering.run(
        artefact=snakemake.wildcards.artefact,
        rows=snakemake.input.rows,
        model=snakemake.input.model,
        adapter=snakemake.input.get("adapter"),
        fused=snakemake.input.get("fused"),
        gguf=snakemake.input.get("gguf"),
        config=json.loads(snakemake.params.config),
        predictions=snakemake.output.predictions,
        threads=snakemake.threads,
    )
