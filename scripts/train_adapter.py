"""Trains an adapter on all training rows; snaketune.mlx_engine.trainer."""

import json
from pathlib import Path

from snaketune import step

with step.running(snakemake.log[0]):
    from snaketune.mlx_engine import trainer
    from snaketune.train import curve, foretold

    config, later = json.loads(snakemake.params.config), json.loads(snakemake.params.later)
    trainer.train(
        snakemake.input.train,
        snakemake.input.valid,
        snakemake.input.model,
        {**config["train"], **later["train"], "dtype": config["model"]["dtype"], "seed": config["seed"]},
        adapter=snakemake.output.adapter,
        adapter_config=snakemake.output.adapter_config,
        metrics=snakemake.output.metrics,
        summary=snakemake.output.summary,
        work=Path(snakemake.output.adapter).parent / "checkpoints",
    )
    timing = Path(snakemake.output.summary).with_name("timing.json")
    foretold.add(timing, Path(snakemake.input.go).with_name("decision.json"), snakemake.wildcards.experiment)
    curve.draw(snakemake.output.metrics, snakemake.output.curve)
