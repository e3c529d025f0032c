"""Write the complete, validated configuration of this run (snaketune.files)."""

import json

from snaketune.files import write_json
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    write_json(snakemake.output.config, json.loads(snakemake.params.config))
