# What the steps ask of a cluster (profiles/slurm). Light ones run where Snakemake runs; those that load a model ask for
# memory and time by the plan and the pilot, once they are there, and for more on another attempt. On one machine none of
# this has an effect.
from snaketune.plan import cluster_resources


localrules:
    save_config,
    record_run,
    pass_leaks,
    pass_pilot,
    pass_fidelity,
    check_targets,
    select_experiment,
    write_pilot,
    write_modelfile,
    write_card,
    write_report,
    compare_runs,


def experiment_of(wildcards):
    """The experiment that a job is for; the first where it is for none, as pilot and products are."""
    return wildcards.get("experiment", next(iter(EXPERIMENTS)))


def model_memory(wildcards, attempt):
    return cluster_resources.memory_mb(RUN, experiment_of(wildcards), attempt)


def training_memory(wildcards, attempt):
    log = f"{RUN}/logs/train_adapter-{wildcards.experiment}.log"
    return cluster_resources.memory_mb(RUN, wildcards.experiment, attempt, log)


def training_time(wildcards, attempt):
    return cluster_resources.minutes(RUN, experiment_of(wildcards), "train", attempt)


def packaging_time(wildcards, attempt):
    return cluster_resources.minutes(RUN, experiment_of(wildcards), "package", attempt)


def evaluation_time(wildcards, attempt):
    return cluster_resources.minutes(RUN, experiment_of(wildcards), "evaluate", attempt)
