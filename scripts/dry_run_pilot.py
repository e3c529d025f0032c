"""Try the whole chain on ten rows before the pilot (snaketune.pilot.dry_run)."""

import json
from pathlib import Path

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    import msgspec
    from snaketune.config.sections import TrainConfig
    from snaketune.contracts.train import TrainingJob, TrainingOutputs
    from snaketune.pilot import dry_run

    config, untracked = json.loads(snakemake.params.config), json.loads(snakemake.params.untracked)
    train_config = msgspec.convert(config["train"] | untracked["train"], TrainConfig)
    dry_run.run(
        TrainingJob(
            train_tokens=snakemake.input.train,
            valid_tokens=snakemake.input.valid,
            model=snakemake.input.model,
            config=train_config,
            dtype=config["model"]["dtype"],
            seed=config["seed"],
            outputs=TrainingOutputs.in_folder(Path(snakemake.output.report).parent / "dry_run"),
        ),
        report=snakemake.output.report,
        threads=snakemake.threads,
    )
