"""Write the run's page, the same facts as JSON, and the rating form (snaketune.report.page)."""

from pathlib import Path

from snaketune.report import page
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    events.report_result(snakemake.output.page)
    folder = Path(snakemake.output.page).parents[1]
    page.run(
        folder=folder,
        page=snakemake.output.page,
        record=snakemake.output.facts,
        form=snakemake.output.human_eval,
        table=snakemake.output.experiments,
        declared=[*snakemake.input, folder / "model" / "ollama.json", folder / "lm_eval" / "results.json"],
    )
