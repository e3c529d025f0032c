"""Bring a base's configuration and tokenizer here and describe them: snaketune.model.fetching."""

import json

from snaketune import step

with step.running(snakemake.log[0]):
    from snaketune.model.fetching import fetch_config

    fetch_config(json.loads(snakemake.params.config)["model"], snakemake.output.manifest)
