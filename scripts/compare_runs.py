"""Compares all runs that have a report, on one page; see snaketune.report.runs."""

import json
from pathlib import Path

from snaketune import step
from snaketune.report import runs

with step.running(snakemake.log[0]):
    runs.run(
        folders=[Path(report).parents[1] for report in snakemake.input.reports],
        page_file=snakemake.output.page,
        record=snakemake.output.facts,
        seed=json.loads(snakemake.params.config)["seed"],
    )
