# Stage pilot: a short training on part of the rows, and a decision whether the long one is worth its time.
#
# needs    the first experiment's base and tokens, the plan
# leaves   pilot/{adapters.safetensors,adapter_config.json,metrics.jsonl,summary.json}, decision.json; go, after a go
# steps    try_pilot (ten rows through the whole chain), train_pilot, train_share (for the learning curve), decide_pilot,
#          pass_pilot; write_pilot (the pilot's own page, also after a no-go)
#
# The full training takes `go` as ancient(): it is a permission. Other pilot settings never train again. The settings of
# later stages go into the forecast through `later`: as a function of its input, Snakemake does not compare it.
PILOTED, FIRST = next(iter(EXPERIMENTS.items()))
SHARES = [share for share in CONFIG["pilot"]["learning_curve"] or [] if share < 1]  # the pilot is the last point


rule pilot:
    input:
        f"{RUN}/pilot/decision.json",
        f"{RUN}/pilot/index.html",
        f"{RUN}/pilot/go",


rule try_pilot:
    input:
        train=stores(FIRST["model"])["train"],
        valid=stores(FIRST["model"])["valid"],
        model=f"{MODELS}/{base_models.model_key(FIRST['model'])}.json",
        plan=rules.forecast_run.output.plan,
    output:
        report=ensure(f"{RUN}/pilot/dry_run.json", non_empty=True),
    log:
        f"{RUN}/logs/try_pilot.log",
    benchmark:
        f"{RUN}/benchmarks/try_pilot.tsv"
    conda:
        "../envs/gguf.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
        mem_mb=model_memory,
        runtime=training_time,
    params:
        config=settings(
            train=without(FIRST["train"], *WITHOUT_EFFECT),
            model=only(FIRST["model"], "dtype"),
            seed=CONFIG["seed"],
        ),
        later=lambda wildcards, input: settings_text(train=only(FIRST["train"], *WITHOUT_EFFECT)),
        code=code("try_pilot", "gguf"),
    script:
        "../scripts/try_pilot.py"


rule train_pilot:
    input:
        train=stores(FIRST["model"])["train"],
        valid=stores(FIRST["model"])["valid"],
        model=f"{MODELS}/{base_models.model_key(FIRST['model'])}.json",
        tried=rules.try_pilot.output.report,
    output:
        adapter=ensure(f"{RUN}/pilot/adapters.safetensors", non_empty=True),
        adapter_config=f"{RUN}/pilot/adapter_config.json",
        metrics=f"{RUN}/pilot/metrics.jsonl",
        summary=ensure(f"{RUN}/pilot/summary.json", non_empty=True),
    log:
        f"{RUN}/logs/train_pilot.log",
    benchmark:
        f"{RUN}/benchmarks/train_pilot.tsv"
    conda:
        "../envs/mlx.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
        mem_mb=model_memory,
        runtime=training_time,
    params:
        config=settings(
            pilot=only(CONFIG["pilot"], "rows", "max_steps"),
            train=without(FIRST["train"], *WITHOUT_EFFECT),
            model=only(FIRST["model"], "dtype"),
            seed=CONFIG["seed"],
        ),
        later=lambda wildcards, input: settings_text(train=only(FIRST["train"], *WITHOUT_EFFECT)),
        code=code("train_pilot", "mlx"),
    script:
        "../scripts/train_pilot.py"


rule train_share:
    input:
        train=stores(FIRST["model"])["train"],
        valid=stores(FIRST["model"])["valid"],
        model=f"{MODELS}/{base_models.model_key(FIRST['model'])}.json",
        tried=rules.try_pilot.output.report,
    output:
        adapter=ensure(f"{RUN}/pilot/share-{{share}}/adapters.safetensors", non_empty=True),
        adapter_config=f"{RUN}/pilot/share-{{share}}/adapter_config.json",
        metrics=f"{RUN}/pilot/share-{{share}}/metrics.jsonl",
        summary=ensure(f"{RUN}/pilot/share-{{share}}/summary.json", non_empty=True),
    log:
        f"{RUN}/logs/train_share-{{share}}.log",
    benchmark:
        f"{RUN}/benchmarks/train_share-{{share}}.tsv"
    wildcard_constraints:
        share="[0-9.e-]+",
    conda:
        "../envs/mlx.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
        mem_mb=model_memory,
        runtime=training_time,
    params:
        config=lambda wildcards: settings_text(
            share=float(wildcards.share),
            pilot=only(CONFIG["pilot"], "rows", "max_steps"),
            train=without(FIRST["train"], *WITHOUT_EFFECT),
            model=only(FIRST["model"], "dtype"),
            seed=CONFIG["seed"],
        ),
        later=lambda wildcards, input: settings_text(train=only(FIRST["train"], *WITHOUT_EFFECT)),
        code=code("train_share", "mlx"),
    script:
        "../scripts/train_share.py"


rule decide_pilot:
    input:
        adapter=rules.train_pilot.output.adapter,
        adapter_config=rules.train_pilot.output.adapter_config,
        metrics=rules.train_pilot.output.metrics,
        summary=rules.train_pilot.output.summary,
        tried=rules.try_pilot.output.report,
        curve=[f"{RUN}/pilot/share-{share}/summary.json" for share in SHARES],
        train=stores(FIRST["model"])["train"],
        valid=stores(FIRST["model"])["valid"],
        rows=rules.split_rows.output.valid,
        model=f"{MODELS}/{base_models.model_key(FIRST['model'])}.json",
        plan=rules.forecast_run.output.plan,
    output:
        decision=report(
            ensure(f"{RUN}/pilot/decision.json", non_empty=True),
            category="Pilot",
            caption="../report/captions/decision.rst",
        ),
    log:
        f"{RUN}/logs/decide_pilot.log",
    benchmark:
        f"{RUN}/benchmarks/decide_pilot.tsv"
    conda:
        "../envs/mlx.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
        mem_mb=model_memory,
        runtime=evaluation_time,
    params:
        config=settings(
            experiment=PILOTED,
            pilot=CONFIG["pilot"],
            train=without(FIRST["train"], *WITHOUT_EFFECT),
            model=FIRST["model"],
            seed=CONFIG["seed"],
        ),
        later=lambda wildcards, input: settings_text(
            evaluate=only(CONFIG["evaluate"], "max_rows", "max_new_tokens", "forgetting"),
            artefacts=ARTEFACTS,
            package=only(CONFIG["package"], "gguf"),
            threads=CONFIG["threads"],
        ),
        code=code("decide_pilot", "mlx"),
    script:
        "../scripts/decide_pilot.py"


rule pass_pilot:
    input:
        decision=rules.decide_pilot.output.decision,
    output:
        go=f"{RUN}/pilot/go",
    log:
        f"{RUN}/logs/pass_pilot.log",
    retries: 0
    conda:
        "../envs/data.yaml"
    params:
        config=settings(pilot=only(CONFIG["pilot"], "on_no_go")),
        code=code("pass_pilot", "data"),
    script:
        "../scripts/pass_pilot.py"


rule write_pilot:
    input:
        rules.validate_rows.output.report,
        rules.forecast_run.output.plan,
        rules.train_pilot.output.metrics,
        rules.train_pilot.output.summary,
        rules.decide_pilot.output.decision,
    output:
        page=ensure(f"{RUN}/pilot/index.html", non_empty=True),
    log:
        f"{RUN}/logs/write_pilot.log",
    conda:
        "../envs/report.yaml"
    params:
        code=code("write_pilot", "report"),
    script:
        "../scripts/write_pilot.py"
