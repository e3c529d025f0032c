"""Fetch the weights of a base and describe the whole model (snaketune.model.download)."""

import json

import msgspec
from snaketune.runtime import events, progress, step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    from snaketune.model.download import fetch_model
    from snaketune.model.manifest import BaseConfig

    manifest = fetch_model(
        msgspec.convert(json.loads(snakemake.params.config)["model"], BaseConfig), snakemake.output.manifest
    )
    size = sum(file.bytes for file in manifest.files.values())
    events.report_result(f"base model {manifest.base}, {progress.format_bytes(size)}")
