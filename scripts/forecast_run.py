"""Forecast memory, disk and length of the run before it starts (snaketune.plan.plan)."""

import json

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.engines import get_capabilities
    from snaketune.plan import plan
    from snaketune.runtime.machine import this_machine

    config = json.loads(snakemake.params.untracked) | json.loads(snakemake.params.config)
    config["experiments"] = {one["experiment"]: one for one in config["experiments"]}
    plan.run(
        models=snakemake.input.model,
        stores=snakemake.input.stores,
        tokens=snakemake.input.tokens,
        config=config,
        machine=this_machine(get_capabilities().describe_device()),
        seed=config["seed"],
        plan=snakemake.output.plan,
    )
