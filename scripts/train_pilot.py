"""Train a pilot adapter on some of the rows, always with the built-in trainer (snaketune.engines)."""

import json
from pathlib import Path

from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    from msgspec.structs import replace
    from snaketune.contracts.train import TrainingJob
    from snaketune.engines import get_trainer
    from snaketune.train.metrics_log import summary_sentence

    job = TrainingJob.of_step(snakemake.params, snakemake.input, Path(snakemake.output.adapter).parent)
    pilot = json.loads(snakemake.params.config)["pilot"]
    summary = get_trainer().train(replace(job, config=job.config.for_pilot(pilot["max_steps"]), num_rows=pilot["rows"]))
    events.report_result(summary_sentence(summary))
