"""Create the model in Ollama and repeat the evaluation's requests (snaketune.package.ollama)."""

import json

from snaketune.package import ollama
from snaketune.package.serving import ReplaySettings
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    config = json.loads(snakemake.params.config)
    ollama.register(
        ollama.OllamaModel(f"{config['package']['name']}:{config['run']}", snakemake.input.modelfile),
        snakemake.input.predictions,
        snakemake.input.rows,
        ReplaySettings(
            num_prompts=config["package"]["fidelity"]["num_prompts"],
            max_new_tokens=config["evaluate"]["max_new_tokens"],
            timeout=config["package"]["serve_timeout"],
        ),
        snakemake.output.registered,
    )
