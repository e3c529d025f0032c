"""Write Ollama's Modelfile for the first GGUF type (snaketune.package.modelfile)."""

import json

from snaketune.package import modelfile
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    modelfile.write(
        manifest=snakemake.input.manifest,
        gguf=snakemake.input.gguf,
        rows=snakemake.input.rows,
        config=json.loads(snakemake.params.config),
        modelfile=snakemake.output.modelfile,
    )
