"""Compare all runs that have a report, on one page (snaketune.report.run_comparison)."""

import json
from pathlib import Path

from snaketune.report import run_comparison
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    events.report_result(snakemake.output.page)
    run_comparison.run(
        folders=[Path(report).parents[1] for report in snakemake.input.reports],
        page_file=snakemake.output.page,
        record=snakemake.output.facts,
        table=snakemake.output.table,
        seed=json.loads(snakemake.params.config)["seed"],
    )
