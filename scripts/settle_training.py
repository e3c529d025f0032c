"""Write what a training depends on, so that it is stale when that changes: snaketune.files."""

import json

from snaketune import step
from snaketune.files import write_json

with step.running(snakemake.log[0]):
    write_json(snakemake.output.settings, json.loads(snakemake.params.config))
