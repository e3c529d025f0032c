"""Create the model in Ollama and repeat the evaluation's requests (snaketune.package.serving)."""

import json

from snaketune.model.manifest import read_manifest
from snaketune.package import served_prompts, serving
from snaketune.runtime import step
from snaketune.tokens.chat_template import renderer_of

with step.running(snakemake.log[0]):
    config = json.loads(snakemake.params.config)
    serving.register_ollama(
        serving.OllamaModel(f"{config['package']['name']}:{config['run']}", snakemake.input.modelfile),
        snakemake.input.predictions,
        snakemake.input.rows,
        serving.ReplaySettings(
            num_prompts=config["package"]["fidelity"]["num_prompts"],
            max_new_tokens=config["evaluate"]["max_new_tokens"],
            timeout=config["package"]["serve_timeout"],
        ),
        snakemake.output.registered,
    )
    renderer = renderer_of(read_manifest(snakemake.input.model), config["model"]["chat_template"])
    served_prompts.compare_ollama(snakemake.output.registered, renderer, config["package"]["serve_timeout"])
