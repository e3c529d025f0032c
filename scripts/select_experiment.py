"""Choose the experiment that goes on, and put its adapter in place (snaketune.train.selection)."""

import json

import msgspec
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.train import selection

    config = json.loads(snakemake.params.config)
    selection.run(
        msgspec.convert(config["experiments"], list[selection.Candidate]),
        config,
        selection=snakemake.output.selection,
        adapter=snakemake.output.adapter,
        adapter_config=snakemake.output.adapter_config,
        model=snakemake.output.model,
    )
