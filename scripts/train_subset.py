"""Train on a fraction of the pilot's rows, for the learning curve (snaketune.engines)."""

import json
from pathlib import Path

from snaketune.runtime import events, step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    from msgspec.structs import replace
    from snaketune.contracts.train import TrainingJob
    from snaketune.engines import get_trainer
    from snaketune.tokens.token_store import TokenStore
    from snaketune.train.batches import subset_for_fraction
    from snaketune.train.metrics_log import summary_sentence

    job = TrainingJob.of_step(snakemake.params, snakemake.input, Path(snakemake.output.adapter).parent)
    settings = json.loads(snakemake.params.config)
    num_rows, max_steps = subset_for_fraction(
        settings["fraction"],
        min(settings["pilot"]["rows"], len(TokenStore(snakemake.input.train))),
        settings["pilot"]["max_steps"],
        job.config.rows_per_step,
    )
    summary = get_trainer().train(replace(job, config=job.config.for_subset(max_steps), num_rows=num_rows))
    events.report_result(summary_sentence(summary))
