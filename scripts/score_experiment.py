"""Answers validation rows with an experiment's adapter and scores them; snaketune.evaluate.answering, .scoring."""

import json

from snaketune import step

with step.running(snakemake.log[0]):
    from snaketune.evaluate import answering, scoring
    from snaketune.evaluate.artefacts import Artefact

    config = json.loads(snakemake.params.config)
    answering.run(
        Artefact("adapter", model=snakemake.input.model, adapter=snakemake.input.adapter),
        rows=snakemake.input.rows,
        config=config["answering"],
        predictions=snakemake.output.predictions,
        threads=snakemake.threads,
    )
    scoring.run(predictions=snakemake.output.predictions, scores=snakemake.output.scores, config=config["scoring"])
