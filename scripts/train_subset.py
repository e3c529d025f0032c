"""Train on a share of the pilot's rows, for the learning curve; snaketune.engines.mlx.train."""

import json
from pathlib import Path

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.engines.mlx import train as trainer
    from snaketune.pilot import learning_curve
    from snaketune.tokens.token_store import TokenStore

    config, untracked = json.loads(snakemake.params.config), json.loads(snakemake.params.untracked)
    train, pilot = config["train"], config["pilot"]
    rows, updates = learning_curve.subset_for_fraction(
        config["fraction"],
        min(pilot["rows"], len(TokenStore(snakemake.input.train))),
        pilot["max_steps"],
        train["batch_size"] * train["gradient_accumulation_steps"],
    )
    trainer.train(
        snakemake.input.train,
        snakemake.input.valid,
        snakemake.input.model,
        {
            **train,
            **untracked["train"],
            "max_steps": updates,
            "dtype": config["model"]["dtype"],
            "seed": config["seed"],
        },
        adapter=snakemake.output.adapter,
        adapter_config=snakemake.output.adapter_config,
        metrics=snakemake.output.metrics,
        summary=snakemake.output.summary,
        work=Path(snakemake.output.adapter).parent / "checkpoints",
        rows=rows,
    )
