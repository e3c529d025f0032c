"""Read every source; keep, reject or drop each row (snaketune.data.validate)."""

import json

import msgspec
from snaketune.data import validate
from snaketune.data.records import ValidationConfig
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    given = json.loads(snakemake.params.config)
    report = validate.run(
        config=msgspec.convert(given["data"], ValidationConfig),
        seed=given["seed"],
        records=snakemake.output.records,
        rejected=snakemake.output.rejected,
        report=snakemake.output.report,
    )
    events.report_result(f"{report.kept:,} of {report.read:,} rows kept")
