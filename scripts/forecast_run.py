"""Forecast memory, disk and length of the run before it starts (snaketune.plan.plan)."""

from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    from snaketune.engines import get_capabilities
    from snaketune.plan import plan
    from snaketune.runtime.machine import this_machine
    from snaketune.trainers.environment import check_installed

    settings = plan.PlanSettings.of_step(snakemake.params)
    check_installed(settings.trainers)
    found = plan.run(
        settings,
        models=snakemake.input.model,
        stores=snakemake.input.stores,
        tokens=snakemake.input.tokens,
        machine=this_machine(get_capabilities().describe_device()),
        plan=snakemake.output.plan,
    )
    events.report_result(plan.summary_sentence(found))
