"""Print a few training rows as the model reads them (snaketune.report.preview)."""

from snaketune.contracts.data import Preview
from snaketune.files import read_json
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.report import preview

    preview.show(read_json(snakemake.input.record, Preview), snakemake.input.page)
