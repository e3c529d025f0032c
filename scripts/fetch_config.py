"""Fetch and describe the configuration and tokenizer of a base (snaketune.model.download)."""

import json

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.model.download import fetch_config

    fetch_config(json.loads(snakemake.params.config)["model"], snakemake.output.manifest)
