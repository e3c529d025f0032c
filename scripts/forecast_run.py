"""Forecast memory, disk and length of the run before it starts: snaketune.plan.forecast."""

import json

from snaketune import step

with step.running(snakemake.log[0]):
    from snaketune.mlx_engine import device
    from snaketune.plan import forecast
    from snaketune.plan.machine import this_machine

    config = json.loads(snakemake.params.later) | json.loads(snakemake.params.config)
    config["experiments"] = {one["experiment"]: one for one in config["experiments"]}
    forecast.run(
        models=snakemake.input.model,
        stores=snakemake.input.stores,
        tokens=snakemake.input.tokens,
        config=config,
        machine=this_machine(device.describe()),
        seed=config["seed"],
        plan=snakemake.output.plan,
    )
