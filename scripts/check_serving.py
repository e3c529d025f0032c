"""Serve the first GGUF type over HTTP and repeat the evaluation's requests (snaketune.package.serving)."""

import json

from snaketune.package import serving
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    config = json.loads(snakemake.params.config)
    settings = serving.ReplaySettings(
        num_prompts=config["package"]["fidelity"]["num_prompts"],
        max_new_tokens=config["evaluate"]["max_new_tokens"],
        timeout=config["package"]["serve_timeout"],
    )
    serving.check(
        snakemake.input.gguf,
        serving.replay_requests(snakemake.input.predictions, snakemake.input.rows, settings.num_prompts),
        settings,
        snakemake.output.served,
    )
