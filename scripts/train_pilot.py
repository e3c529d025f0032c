"""Train a pilot adapter on some of the rows, with the trainer of the full run (snaketune.engines)."""

import json
from pathlib import Path

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    import msgspec
    from snaketune.config.sections import TrainConfig
    from snaketune.contracts.train import TrainingJob, TrainingOutputs
    from snaketune.engines import get_trainer

    config, untracked = json.loads(snakemake.params.config), json.loads(snakemake.params.untracked)
    train_config = msgspec.convert(config["train"] | untracked["train"], TrainConfig)
    get_trainer().train(
        TrainingJob(
            train_tokens=snakemake.input.train,
            valid_tokens=snakemake.input.valid,
            model=snakemake.input.model,
            config=train_config.for_pilot(config["pilot"]["max_steps"]),
            dtype=config["model"]["dtype"],
            seed=config["seed"],
            outputs=TrainingOutputs.in_folder(Path(snakemake.output.adapter).parent),
            num_rows=config["pilot"]["rows"],
        )
    )
