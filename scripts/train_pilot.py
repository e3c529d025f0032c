"""Trains a pilot adapter on some of the rows, with the very trainer of the long run; snaketune.engines.mlx.train."""

import json
from pathlib import Path

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.engines.mlx import train

    config, untracked = json.loads(snakemake.params.config), json.loads(snakemake.params.untracked)
    train.train(
        snakemake.input.train,
        snakemake.input.valid,
        snakemake.input.model,
        {
            **config["train"],
            **untracked["train"],
            "epochs": 1,
            "max_steps": config["pilot"]["max_steps"],
            "dtype": config["model"]["dtype"],
            "seed": config["seed"],
            "max_nonfinite_steps": 1_000_000,  # a pilot that diverges goes on to its end, for decide_pilot to see
        },
        adapter=snakemake.output.adapter,
        adapter_config=snakemake.output.adapter_config,
        metrics=snakemake.output.metrics,
        summary=snakemake.output.summary,
        work=Path(snakemake.output.adapter).parent / "checkpoints",
        rows=config["pilot"]["rows"],
    )
