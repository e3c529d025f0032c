"""Choose the experiment that goes on, and put its adapter where packaging looks: snaketune.train.selection."""

import json

from snaketune import step

with step.running(snakemake.log[0]):
    from snaketune.train import selection

    selection.run(
        summaries=snakemake.input.summaries,
        adapters=snakemake.input.adapters,
        adapter_configs=snakemake.input.adapter_configs,
        models=snakemake.input.models,
        scores=snakemake.input.scores,
        config=json.loads(snakemake.params.config),
        selection=snakemake.output.selection,
        adapter=snakemake.output.adapter,
        adapter_config=snakemake.output.adapter_config,
        model=snakemake.output.model,
    )
