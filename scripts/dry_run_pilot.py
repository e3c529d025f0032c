"""Try the whole chain on ten rows before the pilot (snaketune.pilot.dry_run)."""

import json
from pathlib import Path

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.contracts.train import TrainingJob
    from snaketune.pilot import dry_run

    job = TrainingJob.of_step(snakemake.params, snakemake.input, Path(snakemake.output.report).parent / "dry_run")
    gguf = json.loads(snakemake.params.untracked)["gguf"]
    dry_run.run(job, report=snakemake.output.report, threads=snakemake.threads, gguf=gguf)
