"""Hold the pilot against the criteria for a go, and forecast the full run (snaketune.pilot.decide)."""

import json
import time

import msgspec
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.pilot import decide
    from snaketune.pilot.forecast import DecisionSettings

    decide.run(
        decide.PilotFiles(
            summary=snakemake.input.summary,
            metrics=snakemake.input.metrics,
            adapter=snakemake.input.adapter,
            model=snakemake.input.model,
            train=snakemake.input.train,
            valid=snakemake.input.valid,
            rows=snakemake.input.rows,
            plan=snakemake.input.plan,
            dry_run=snakemake.input.dry_run,
            subsets=snakemake.input.curve,
        ),
        msgspec.convert(json.loads(snakemake.params.untracked) | json.loads(snakemake.params.config), DecisionSettings),
        snakemake.output.decision,
        start_seconds=time.process_time(),
    )
