"""Read every source; keep, reject or drop each row (snaketune.data.validate)."""

import json

import msgspec
from snaketune.config.sections import ValidationConfig
from snaketune.data import validate
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    validate.run(
        config=msgspec.convert(json.loads(snakemake.params.config)["data"], ValidationConfig),
        records=snakemake.output.records,
        rejected=snakemake.output.rejected,
        report=snakemake.output.report,
    )
