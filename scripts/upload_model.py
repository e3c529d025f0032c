"""Upload the GGUF files and the card to the hub (snaketune.package.upload)."""

import json

from snaketune.package import upload
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    upload.run(
        card=snakemake.input.card,
        products=snakemake.input.products,
        fidelity=snakemake.input.fidelity,
        config=json.loads(snakemake.params.config),
        uploaded=snakemake.output.uploaded,
    )
