"""Hold the pilot against the criteria for a go, and forecast the full run (snaketune.pilot.decide)."""

import json
import time

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.pilot import decide

    decide.run(
        summary=snakemake.input.summary,
        metrics=snakemake.input.metrics,
        adapter=snakemake.input.adapter,
        model=snakemake.input.model,
        train=snakemake.input.train,
        valid=snakemake.input.valid,
        plan=snakemake.input.plan,
        tried=snakemake.input.dry_run,
        curve=snakemake.input.curve,
        config=json.loads(snakemake.params.untracked) | json.loads(snakemake.params.config),
        decision=snakemake.output.decision,
        start=time.process_time(),
    )
