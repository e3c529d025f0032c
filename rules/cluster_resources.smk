# What the steps request of a cluster (profiles/slurm). Light rules run locally; rules that load a model request memory and
# time from plan.json and the pilot when available, and more on each retry. On one machine none of this has an effect.
#
# gives    model_memory, training_memory, training_time, packaging_time, evaluation_time
# reads    experiment_of (common.smk)
from snaketune.plan import cluster_resources


localrules:
    save_config,
    record_run,
    pass_leaks,
    pass_pilot,
    pass_fidelity,
    pass_serving,
    pass_thresholds,
    select_experiment,
    write_pilot_report,
    write_modelfile,
    write_card,
    write_report,
    compare_runs,


def model_memory(wildcards, attempt):
    return cluster_resources.memory_mb(RUN, experiment_of(wildcards).name, attempt)


def training_memory(wildcards, attempt):
    return cluster_resources.memory_mb(
        RUN, wildcards.experiment, attempt, logs(f"train_adapter-{wildcards.experiment}")
    )


def training_time(wildcards, attempt):
    return cluster_resources.minutes(RUN, experiment_of(wildcards).name, "train", attempt)


def packaging_time(wildcards, attempt):
    return cluster_resources.minutes(RUN, experiment_of(wildcards).name, "package", attempt)


def evaluation_time(wildcards, attempt):
    return cluster_resources.minutes(RUN, experiment_of(wildcards).name, "evaluate", attempt)
