"""List the rows that stand, or nearly stand, in more than one split (snaketune.data.splits)."""

import msgspec
from snaketune.data import splits
from snaketune.data.splits import LeakageConfig
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    splits.check_leaks(
        config=msgspec.json.decode(snakemake.params.config, type=LeakageConfig),
        train=snakemake.input.train,
        valid=snakemake.input.valid,
        test=snakemake.input.test,
        leaks=snakemake.output.leaks,
    )
