"""Read every source; keep, reject or drop each row (snaketune.data.validate)."""

import json

from snaketune.data import validate
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    validate.run(
        config=json.loads(snakemake.params.config),
        records=snakemake.output.records,
        rejected=snakemake.output.rejected,
        report=snakemake.output.report,
    )
