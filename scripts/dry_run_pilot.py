"""Try the whole chain on ten rows before the pilot (snaketune.pilot.dry_run)."""

import json
from pathlib import Path

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.contracts.train import TrainingJob
    from snaketune.pilot import dry_run

    job = TrainingJob.of_step(snakemake.params, snakemake.input, Path(snakemake.output.report).parent / "dry_run")
    package = json.loads(snakemake.params.untracked)
    dry_run.run(
        job,
        plan=snakemake.input.plan,
        report=snakemake.output.report,
        threads=snakemake.threads,
        files=dry_run.FilesToMake(package["gguf"], package["imatrix"]),
    )
