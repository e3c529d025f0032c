"""Write Ollama's Modelfile for the first GGUF type (snaketune.package.modelfile)."""

import json

from snaketune.config.sections import OllamaConfig
from snaketune.package import modelfile
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    config = json.loads(snakemake.params.config)
    modelfile.write_modelfile(
        snakemake.input.manifest,
        snakemake.input.gguf,
        snakemake.input.rows,
        modelfile.ModelfileSettings(
            run=config["run"],
            name=config["package"]["name"],
            parameters=OllamaConfig(**config["package"]["ollama"]),
            system=config["data"]["system"],
        ),
        snakemake.output.modelfile,
    )
