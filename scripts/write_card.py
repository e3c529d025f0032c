"""Write the model card from what was measured (snaketune.package.card)."""

import msgspec
from snaketune.package import card
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    card.write(
        card.CardInputs(
            manifest=snakemake.input.manifest,
            fidelity=snakemake.input.fidelity,
            split=snakemake.input.split,
            selection=snakemake.input.selection,
            comparison=snakemake.input.comparison,
        ),
        msgspec.json.decode(snakemake.params.config, type=card.CardConfig),
        snakemake.output.card,
    )
