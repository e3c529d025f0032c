"""Trains an adapter on all training rows; snaketune.engines.mlx.train."""

import json
from pathlib import Path

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.engines.mlx import train
    from snaketune.pilot import forecast_record
    from snaketune.train import loss_plot

    config, untracked = json.loads(snakemake.params.config), json.loads(snakemake.params.untracked)
    train.train(
        snakemake.input.train,
        snakemake.input.valid,
        snakemake.input.model,
        {**config["train"], **untracked["train"], "dtype": config["model"]["dtype"], "seed": config["seed"]},
        adapter=snakemake.output.adapter,
        adapter_config=snakemake.output.adapter_config,
        metrics=snakemake.output.metrics,
        summary=snakemake.output.summary,
        work=Path(snakemake.output.adapter).parent / "checkpoints",
    )
    timing = Path(snakemake.output.summary).with_name("timing.json")
    forecast_record.add(timing, Path(snakemake.input.go).with_name("decision.json"), snakemake.wildcards.experiment)
    loss_plot.draw(snakemake.output.metrics, snakemake.output.curve)
