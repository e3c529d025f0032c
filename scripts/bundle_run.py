"""Put a run into one archive (snaketune.bundle.handover)."""

import json
from pathlib import Path

from snaketune.bundle import handover
from snaketune.runtime import events, progress, step

with step.running(snakemake.log[0]):
    wanted = json.loads(snakemake.params.config)["package"]["bundle"]
    handover.make(
        Path(snakemake.output.bundle).parent,
        snakemake.output.bundle,
        inputs=list(snakemake.input.inputs) if "inputs" in wanted else None,
        products="products" in wanted,
    )
    events.report_result(progress.format_bytes(progress.size_of(snakemake.output.bundle)))
