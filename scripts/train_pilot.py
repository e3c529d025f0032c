"""Train a pilot adapter on some of the rows, always with the built-in trainer (snaketune.engines)."""

from pathlib import Path

from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    from snaketune.engines import get_trainer
    from snaketune.train.metrics_log import summary_sentence
    from snaketune.train.training import pilot_job

    job = pilot_job(snakemake.params, snakemake.input, Path(snakemake.output.adapter).parent)
    events.report_result(summary_sentence(get_trainer().train(job)))
