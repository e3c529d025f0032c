# Stage train: one adapter for each experiment; the best goes on.
#
# needs    the tokenized splits, the base, a go from the pilot
# leaves   train/<experiment>/{adapters.safetensors,adapter_config.json,metrics.jsonl,summary.json,loss.svg};
#          train/selection.json, model/adapter/ (the chosen adapter) and model/base.json (its base)
# steps    train_adapter, score_experiment (on validation rows where select.metric is a metric of generated answers, on
#          test rows where evaluate.experiments asks for it), select_experiment
# gives    CHOSEN_ADAPTER, CHOSEN_ADAPTER_CONFIG and CHOSEN_BASE, the manifest of its base, to the stages after it
# reads    rules.pass_pilot, rules.decide_pilot (pilot.smk), rules.split_rows (data.smk)
#
# The go is ancient(), a permission: what changes in the pilot alone trains nothing again.


rule train:
    """Stage: train one adapter for each experiment and choose the best."""
    input:
        f"{RUN}/train/selection.json",
        f"{RUN}/model/adapter/adapters.safetensors",
        f"{RUN}/model/adapter/adapter_config.json",
        this_run.experiment_files("adapters.safetensors"),
        this_run.experiment_files("adapter_config.json"),
        this_run.experiment_files("metrics.jsonl"),
        this_run.experiment_files("summary.json"),


rule train_adapter:
    """Train the adapter of one experiment on all training rows."""
    input:
        train=lambda wildcards: this_run.token_stores(experiment_of(wildcards))["train"],
        valid=lambda wildcards: this_run.token_stores(experiment_of(wildcards))["valid"],
        model=lambda wildcards: manifest(experiment_of(wildcards).model),
        go=permission(rules.pass_pilot.output.go),
    output:
        adapter=ensure(f"{RUN}/train/{{experiment}}/adapters.safetensors", non_empty=True),
        adapter_config=f"{RUN}/train/{{experiment}}/adapter_config.json",
        metrics=f"{RUN}/train/{{experiment}}/metrics.jsonl",
        summary=ensure(f"{RUN}/train/{{experiment}}/summary.json", non_empty=True),
        curve=report(
            f"{RUN}/train/{{experiment}}/loss.svg",
            category="Training",
            caption="../report/captions/loss.rst",
        ),
    log:
        logs("train_adapter-{experiment}"),
    benchmark:
        benchmarks("train_adapter-{experiment}")
    conda:
        f"../envs/{ENGINE}.yaml"
    threads: THREADS
    resources:
        gpu=gpu_share,
        mem_mb=training_memory,
        runtime=training_time,
    params:
        config=tracked(
            train=lambda wildcards: tracked_train(experiment_of(wildcards)),
            model=lambda wildcards: pick(experiment_of(wildcards).model, "dtype"),
            seed=lambda wildcards: experiment_of(wildcards).seed,
        ),
        untracked=untracked(train=lambda wildcards: untracked_train(experiment_of(wildcards))),
        code=training_code("train_adapter", ENGINE),
    script:
        scripts("train_adapter")


rule score_experiment:
    """Generate answers to the rows of a split with one experiment's adapter and score them."""
    input:
        similarity=this_run.similarity_model or [],
        adapter=rules.train_adapter.output.adapter,
        adapter_config=rules.train_adapter.output.adapter_config,
        model=lambda wildcards: manifest(experiment_of(wildcards).model),
        rows=lambda wildcards: rules.split_rows.output["test" if wildcards.split == "test" else "valid"],
        decision=permission(rules.decide_pilot.output.decision),
    output:
        predictions=ensure(f"{RUN}/train/{{experiment}}/{{split}}/predictions.jsonl", non_empty=True),
        scores=ensure(f"{RUN}/train/{{experiment}}/{{split}}/scores.json", non_empty=True),
    log:
        logs("score_experiment-{experiment}-{split}"),
    benchmark:
        benchmarks("score_experiment-{experiment}-{split}")
    conda:
        "../envs/gguf.yaml"
    threads: THREADS
    resources:
        gpu=gpu_share,
        mem_mb=model_memory,
        runtime=evaluation_time,
    params:
        config=tracked(
            predict=lambda wildcards: evaluate_settings.prediction_config(
                this_run.config, experiment_of(wildcards), "adapter"
            ),
            score=evaluate_settings.scoring_config(this_run.config),
        ),
        code=code("score_experiment", "gguf"),
    script:
        scripts("score_experiment")


rule select_experiment:
    """Choose the experiment that goes on, and put its adapter where packaging looks."""
    input:
        [file for name in this_run.experiments for file in this_run.candidate_files(name).values()],
    output:
        selection=ensure(f"{RUN}/train/selection.json", non_empty=True),
        adapter=f"{RUN}/model/adapter/adapters.safetensors",
        adapter_config=f"{RUN}/model/adapter/adapter_config.json",
        model=f"{RUN}/model/base.json",
    log:
        logs("select_experiment"),
    benchmark:
        benchmarks("select_experiment")
    conda:
        "../envs/data.yaml"
    params:
        config=tracked(
            experiments=[
                {"experiment": one.name, "train": tracked_train(one), "model": one.model, "seed": one.seed}
                | this_run.candidate_files(one.name)
                for one in this_run.experiments.values()
            ],
            tolerance=this_run.config.select.tolerance,
            metric=evaluate_settings.selection_metric(this_run.config),
        ),
        code=code("select_experiment", "data"),
    script:
        scripts("select_experiment")


CHOSEN_BASE = this_run.shared_base or rules.select_experiment.output.model
CHOSEN_ADAPTER = rules.select_experiment.output.adapter
CHOSEN_ADAPTER_CONFIG = rules.select_experiment.output.adapter_config
