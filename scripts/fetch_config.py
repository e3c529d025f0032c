"""Fetch and describe the configuration and tokenizer of a base (snaketune.model.download)."""

import json

import msgspec
from snaketune.runtime import step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    from snaketune.model.download import fetch_config
    from snaketune.model.manifest import BaseConfig

    fetch_config(msgspec.convert(json.loads(snakemake.params.config)["model"], BaseConfig), snakemake.output.manifest)
