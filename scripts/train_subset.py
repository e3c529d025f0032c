"""Train on a fraction of the pilot's rows, for the learning curve (snaketune.engines)."""

from pathlib import Path

from snaketune.runtime import events, step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    from snaketune.engines import get_trainer
    from snaketune.train.metrics_log import summary_sentence
    from snaketune.train.training import subset_job

    job = subset_job(snakemake.params, snakemake.input, Path(snakemake.output.adapter).parent)
    events.report_result(summary_sentence(get_trainer().train(job)))
