"""Forecast memory, disk and length of the run before it starts (snaketune.plan.plan)."""

import json

import msgspec
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    from snaketune.engines import get_capabilities
    from snaketune.plan import plan
    from snaketune.runtime.machine import this_machine
    from snaketune.trainers.environment import check_installed

    config, untracked = json.loads(snakemake.params.config), json.loads(snakemake.params.untracked)
    for experiment in config["experiments"]:
        experiment["train"] |= untracked["train"][experiment["name"]]
    check_installed(experiment["train"]["trainer"] for experiment in config["experiments"])
    settings = config | {key: untracked[key] for key in ("gguf", "imatrix", "mlx", "adapter", "engine")}
    found = plan.run(
        msgspec.convert(settings, plan.PlanSettings),
        models=snakemake.input.model,
        stores=snakemake.input.stores,
        tokens=snakemake.input.tokens,
        machine=this_machine(get_capabilities().describe_device()),
        plan=snakemake.output.plan,
    )
    events.report_result(plan.summary_sentence(found))
