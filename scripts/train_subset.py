"""Train on a fraction of the pilot's rows, for the learning curve (snaketune.engines)."""

import json
from pathlib import Path

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    import msgspec
    from snaketune.config.sections import TrainConfig
    from snaketune.contracts.train import TrainingJob, TrainingOutputs
    from snaketune.engines import get_trainer
    from snaketune.tokens.token_store import TokenStore
    from snaketune.train.batches import subset_for_fraction

    config, untracked = json.loads(snakemake.params.config), json.loads(snakemake.params.untracked)
    train_config = msgspec.convert(config["train"] | untracked["train"], TrainConfig)
    num_rows, max_steps = subset_for_fraction(
        config["fraction"],
        min(config["pilot"]["rows"], len(TokenStore(snakemake.input.train))),
        config["pilot"]["max_steps"],
        train_config.rows_per_step,
    )
    get_trainer().train(
        TrainingJob(
            train_tokens=snakemake.input.train,
            valid_tokens=snakemake.input.valid,
            model=snakemake.input.model,
            config=train_config.for_subset(max_steps),
            dtype=config["model"]["dtype"],
            seed=config["seed"],
            outputs=TrainingOutputs.in_folder(Path(snakemake.output.adapter).parent),
            num_rows=num_rows,
        )
    )
