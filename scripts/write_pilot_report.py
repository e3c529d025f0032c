"""Write the pilot's page, after a go and after a no-go (snaketune.report.page)."""

import json
from pathlib import Path

from snaketune.report import page
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    events.report_result(snakemake.output.page)
    page.pilot(
        folder=Path(snakemake.output.page).parents[1],
        page=snakemake.output.page,
        declared=list(snakemake.input),
        base=json.loads(snakemake.params.config)["base"],
    )
