"""Render a few training rows, with what is trained marked, as a record and a page (snaketune.report.preview)."""

import msgspec
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.report import preview

    preview.run(
        train=snakemake.input.train,
        manifest=snakemake.input.model,
        config=msgspec.json.decode(snakemake.params.config, type=preview.PreviewConfig),
        record=snakemake.output.record,
        page=snakemake.output.page,
    )
