"""Train an adapter on all training rows (snaketune.engines)."""

import json
from pathlib import Path

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    import msgspec
    from snaketune.config.sections import TrainConfig
    from snaketune.contracts.train import TrainingJob, TrainingOutputs
    from snaketune.engines import get_trainer
    from snaketune.pilot import forecast_record
    from snaketune.train import loss_plot

    config, untracked = json.loads(snakemake.params.config), json.loads(snakemake.params.untracked)
    train_config = msgspec.convert(config["train"] | untracked["train"], TrainConfig)
    get_trainer().train(
        TrainingJob(
            train_tokens=snakemake.input.train,
            valid_tokens=snakemake.input.valid,
            model=snakemake.input.model,
            config=train_config,
            dtype=config["model"]["dtype"],
            seed=config["seed"],
            outputs=TrainingOutputs.in_folder(Path(snakemake.output.adapter).parent),
        )
    )
    timing = Path(snakemake.output.summary).with_name("timing.json")
    decision = Path(snakemake.input.go).with_name("decision.json")
    forecast_record.record_forecast(timing, decision, snakemake.wildcards.experiment)
    loss_plot.draw_loss(snakemake.output.metrics, snakemake.output.curve)
