"""Bring a base's weights here and describe the whole model: snaketune.model.fetching."""

import json

from snaketune import step

with step.running(snakemake.log[0]):
    from snaketune.model.fetching import fetch_model

    fetch_model(json.loads(snakemake.params.config)["model"], snakemake.output.manifest)
