"""Write the model card from what was measured (snaketune.package.card)."""

import json

from snaketune.package import card
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    card.write(
        manifest=snakemake.input.manifest,
        fidelity=snakemake.input.fidelity,
        split=snakemake.input.split,
        selection=snakemake.input.selection,
        comparison=snakemake.input.comparison,
        config=json.loads(snakemake.params.config),
        card=snakemake.output.card,
    )
