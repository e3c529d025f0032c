"""Assign whole clusters of related rows to train, valid and test (snaketune.data.splits)."""

import msgspec
from snaketune.contracts.data import SPLITS
from snaketune.data import splits
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    found = splits.run(
        config=msgspec.json.decode(snakemake.params.config, type=splits.SplitRowsConfig),
        records=snakemake.input.records,
        outputs={name: snakemake.output[name] for name in SPLITS},
        split=snakemake.output.split,
    )
    events.report_result(", ".join(f"{found.rows[name]:,} {name}" for name in SPLITS))
