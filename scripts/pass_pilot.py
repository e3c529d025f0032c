"""Let the training begin after a go; stop the run after a no-go (snaketune.pilot.criteria)."""

import json

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.pilot import criteria

    criteria.write_go_or_raise(
        snakemake.input.decision,
        on_no_go=json.loads(snakemake.params.config)["pilot"]["on_no_go"],
        go=snakemake.output.go,
    )
