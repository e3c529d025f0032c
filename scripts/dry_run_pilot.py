"""Try the whole chain on ten rows before the pilot: snaketune.pilot.dry_run."""

import json

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.pilot import dry_run

    config, untracked = json.loads(snakemake.params.config), json.loads(snakemake.params.untracked)
    dry_run.run(
        train=snakemake.input.train,
        valid=snakemake.input.valid,
        model=snakemake.input.model,
        settings={**config["train"], **untracked["train"], "dtype": config["model"]["dtype"], "seed": config["seed"]},
        report=snakemake.output.report,
        threads=snakemake.threads,
    )
