"""Bring a base's configuration and tokenizer here and describe them: snaketune.model.download."""

import json

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.model.download import fetch_config

    fetch_config(json.loads(snakemake.params.config)["model"], snakemake.output.manifest)
