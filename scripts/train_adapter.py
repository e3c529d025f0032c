"""Train an adapter on all training rows (snaketune.engines)."""

from pathlib import Path

from snaketune.runtime import events, step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    from snaketune.contracts.train import TrainingJob
    from snaketune.engines import get_trainer
    from snaketune.pilot import forecast_record
    from snaketune.train import metrics_log
    from snaketune.train.metrics_log import summary_sentence
    from snaketune.trainers import trainer_of

    job = TrainingJob.of_step(snakemake.params, snakemake.input, Path(snakemake.output.adapter).parent)
    events.report_result(summary_sentence(trainer_of(job, get_trainer).train(job)))
    timing = Path(snakemake.output.summary).with_name("timing.json")
    decision = Path(snakemake.input.go).with_name("decision.json")
    forecast_record.record_forecast(timing, decision, snakemake.wildcards.experiment)
    metrics_log.draw_loss(snakemake.output.metrics, snakemake.output.curve)
