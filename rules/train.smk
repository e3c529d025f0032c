# Stage train: one adapter for each experiment; the best goes on.
#
# needs    the tokenised splits, the base, a go from the pilot
# leaves   train/<experiment>/{adapters.safetensors,adapter_config.json,metrics.jsonl,summary.json,loss.svg};
#          train/selection.json, model/adapter/ (the chosen adapter) and model/base.json (its base)
# steps    train_adapter, score_experiment (where select.metric is a measure of answers), select_experiment
#
# The go is ancient(), a permission: what changes in the pilot alone trains nothing again.
BY_MEASURE = CONFIG["select"]["metric"] != "validation_loss"


def candidate_files(name):
    """What the choice between experiments reads of one of them."""
    folder = f"{RUN}/train/{name}"
    files = {
        "summary": f"{folder}/summary.json",
        "adapter": f"{folder}/adapters.safetensors",
        "adapter_config": f"{folder}/adapter_config.json",
        "manifest": f"{MODELS}/{base_models.model_key(EXPERIMENTS[name]['model'])}.json",
    }
    return files | ({"scores": f"{folder}/validation/scores.json"} if BY_MEASURE else {})


rule train:
    input:
        f"{RUN}/train/selection.json",
        f"{RUN}/model/adapter/adapters.safetensors",
        f"{RUN}/model/adapter/adapter_config.json",
        adapter_files("adapters.safetensors"),
        adapter_files("adapter_config.json"),
        adapter_files("metrics.jsonl"),
        adapter_files("summary.json"),


rule train_adapter:
    input:
        train=lambda wildcards: stores(EXPERIMENTS[wildcards.experiment]["model"])["train"],
        valid=lambda wildcards: stores(EXPERIMENTS[wildcards.experiment]["model"])["valid"],
        model=lambda wildcards: f"{MODELS}/{base_models.model_key(EXPERIMENTS[wildcards.experiment]['model'])}.json",
        go=ancient(rules.pass_pilot.output.go),
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
        f"{RUN}/logs/train_adapter-{{experiment}}.log",
    benchmark:
        f"{RUN}/benchmarks/train_adapter-{{experiment}}.tsv"
    conda:
        "../envs/mlx.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
        mem_mb=training_memory,
        runtime=training_time,
    params:
        config=lambda wildcards: settings_text(
            train=without(EXPERIMENTS[wildcards.experiment]["train"], *WITHOUT_EFFECT),
            model=only(EXPERIMENTS[wildcards.experiment]["model"], "dtype"),
            seed=CONFIG["seed"],
        ),
        later=lambda wildcards, input: settings_text(
            train=only(EXPERIMENTS[wildcards.experiment]["train"], *WITHOUT_EFFECT)
        ),
        code=code("train_adapter", "mlx"),
    script:
        "../scripts/train_adapter.py"


rule score_experiment:
    input:
        similarity=SIMILARITY,
        adapter=rules.train_adapter.output.adapter,
        adapter_config=rules.train_adapter.output.adapter_config,
        model=lambda wildcards: f"{MODELS}/{base_models.model_key(EXPERIMENTS[wildcards.experiment]['model'])}.json",
        rows=rules.split_rows.output.valid,
    output:
        predictions=ensure(f"{RUN}/train/{{experiment}}/validation/predictions.jsonl", non_empty=True),
        scores=ensure(f"{RUN}/train/{{experiment}}/validation/scores.json", non_empty=True),
    log:
        f"{RUN}/logs/score_experiment-{{experiment}}.log",
    benchmark:
        f"{RUN}/benchmarks/score_experiment-{{experiment}}.tsv"
    conda:
        "../envs/gguf.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
        mem_mb=model_memory,
        runtime=evaluation_time,
    params:
        config=lambda wildcards: settings_text(
            answering=evaluate_settings.answering(
                dict(CONFIG, model=EXPERIMENTS[wildcards.experiment]["model"]),
                "adapter",
            ),
            scoring=evaluate_settings.scoring(CONFIG),
        ),
        code=code("score_experiment", "gguf"),
    script:
        "../scripts/score_experiment.py"


rule select_experiment:
    input:
        [file for name in EXPERIMENTS for file in candidate_files(name).values()],
    output:
        selection=ensure(f"{RUN}/train/selection.json", non_empty=True),
        adapter=f"{RUN}/model/adapter/adapters.safetensors",
        adapter_config=f"{RUN}/model/adapter/adapter_config.json",
        model=f"{RUN}/model/base.json",
    log:
        f"{RUN}/logs/select_experiment.log",
    benchmark:
        f"{RUN}/benchmarks/select_experiment.tsv"
    conda:
        "../envs/data.yaml"
    params:
        config=settings(
            experiments=[one | candidate_files(one["experiment"]) for one in experiments_in_order(*WITHOUT_EFFECT)],
            select=CONFIG["select"],
            measures=CONFIG["evaluate"]["metrics"] if BY_MEASURE else {},
        ),
        code=code("select_experiment", "data"),
    script:
        "../scripts/select_experiment.py"
