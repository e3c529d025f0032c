"""Create the model in Ollama and repeat the evaluation's requests (snaketune.package.ollama)."""

import json

from snaketune.package import ollama
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    ollama.register(
        modelfile=snakemake.input.modelfile,
        predictions=snakemake.input.predictions,
        rows=snakemake.input.rows,
        config=json.loads(snakemake.params.config),
        registered=snakemake.output.registered,
    )
