"""Train a pilot adapter on some of the rows, with the trainer of the full run (snaketune.engines)."""

import json
from pathlib import Path

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from msgspec.structs import replace
    from snaketune.contracts.train import TrainingJob
    from snaketune.engines import get_trainer

    job = TrainingJob.from_json(
        snakemake.params.config,
        snakemake.params.untracked,
        train_tokens=snakemake.input.train,
        valid_tokens=snakemake.input.valid,
        model=snakemake.input.model,
        folder=Path(snakemake.output.adapter).parent,
    )
    pilot = json.loads(snakemake.params.config)["pilot"]
    get_trainer().train(replace(job, config=job.config.for_pilot(pilot["max_steps"]), num_rows=pilot["rows"]))
