"""Serve the first GGUF type over HTTP and repeat the evaluation's requests (snaketune.package.serving)."""

import json
from pathlib import Path

from snaketune.package import serving
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    serving.check(
        gguf=snakemake.input.gguf,
        predictions=snakemake.input.predictions,
        rows=snakemake.input.rows,
        config=json.loads(snakemake.params.config),
        served=snakemake.output.served,
        timing=Path(snakemake.output.served).with_name("timing.json"),
    )
