"""Choose the experiment that goes on, and put its adapter in place (snaketune.evaluate.selection)."""

import msgspec
from snaketune.contracts.evaluate import SelectionConfig
from snaketune.evaluate import selection
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    found = selection.run(
        msgspec.json.decode(snakemake.params.config, type=SelectionConfig),
        selection.SelectionOutputs(
            selection=snakemake.output.selection,
            adapter=snakemake.output.adapter,
            adapter_config=snakemake.output.adapter_config,
            model=snakemake.output.model,
        ),
    )
    if len(found.experiments) > 1:
        events.report_result(f"{found.experiment} is the best of {len(found.experiments)} experiments")
