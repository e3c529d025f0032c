"""Upload the GGUF files and the card to the hub (snaketune.package.card)."""

import json

from snaketune.config.sections import UploadConfig
from snaketune.package import card
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    card.upload_model(
        [snakemake.input.card, *snakemake.input.products],
        UploadConfig(**json.loads(snakemake.params.config)["package"]["upload"]),
        fidelity=snakemake.input.fidelity,
        uploaded=snakemake.output.uploaded,
    )
