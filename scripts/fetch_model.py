"""Fetch the weights of a base and describe the whole model (snaketune.model.download)."""

import json

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.model.download import fetch_model

    fetch_model(json.loads(snakemake.params.config)["model"], snakemake.output.manifest)
