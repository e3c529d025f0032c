# Stage pilot: a short training on part of the rows, and a decision whether the long one is worth its time.
#
# needs    the first experiment's base and tokens, the plan
# leaves   pilot/{adapters.safetensors,adapter_config.json,metrics.jsonl,summary.json}, decision.json; go, after a go
# steps    train_pilot, decide_pilot, pass_pilot
#
# The full training takes `go` as ancient(): it is a permission. Other pilot settings never train again.
FIRST = next(iter(EXPERIMENTS.values()))


rule pilot:
    input:
        f"{RUN}/pilot/go",


rule train_pilot:
    input:
        train=stores(FIRST["model"])["train"],
        valid=stores(FIRST["model"])["valid"],
        model=f"{MODELS}/{base_models.model_key(FIRST['model'])}.json",
        plan=ancient(rules.forecast_run.output.plan),
    output:
        adapter=ensure(f"{RUN}/pilot/adapters.safetensors", non_empty=True),
        adapter_config=f"{RUN}/pilot/adapter_config.json",
        metrics=f"{RUN}/pilot/metrics.jsonl",
        summary=ensure(f"{RUN}/pilot/summary.json", non_empty=True),
    log:
        f"{RUN}/logs/train_pilot.log",
    benchmark:
        f"{RUN}/benchmarks/train_pilot.tsv"
    params:
        config=settings(
            pilot=only(CONFIG["pilot"], "rows", "updates"),
            train=FIRST["train"],
            model=only(FIRST["model"], "dtype"),
            seed=CONFIG["seed"],
        ),
        code=code("train_pilot", "mlx"),
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
    conda:
        "../envs/mlx.yaml"
    script:
        "../scripts/train_pilot.py"


rule decide_pilot:
    input:
        adapter=rules.train_pilot.output.adapter,
        adapter_config=rules.train_pilot.output.adapter_config,
        metrics=rules.train_pilot.output.metrics,
        summary=rules.train_pilot.output.summary,
        train=stores(FIRST["model"])["train"],
        valid=stores(FIRST["model"])["valid"],
        rows=rules.split_rows.output.valid,
        model=f"{MODELS}/{base_models.model_key(FIRST['model'])}.json",
        plan=rules.forecast_run.output.plan,
    output:
        decision=ensure(f"{RUN}/pilot/decision.json", non_empty=True),
    log:
        f"{RUN}/logs/decide_pilot.log",
    benchmark:
        f"{RUN}/benchmarks/decide_pilot.tsv"
    params:
        config=settings(
            pilot=CONFIG["pilot"],
            train=FIRST["train"],
            model=FIRST["model"],
            evaluate=only(CONFIG["evaluate"], "max_rows", "max_new_tokens"),
            package=only(CONFIG["package"], "gguf"),
            seed=CONFIG["seed"],
        ),
        code=code("decide_pilot", "mlx"),
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
    conda:
        "../envs/mlx.yaml"
    script:
        "../scripts/decide_pilot.py"


rule pass_pilot:
    input:
        decision=rules.decide_pilot.output.decision,
    output:
        go=f"{RUN}/pilot/go",
    log:
        f"{RUN}/logs/pass_pilot.log",
    params:
        config=settings(pilot=only(CONFIG["pilot"], "on_no_go")),
        code=code("pass_pilot", "data"),
    conda:
        "../envs/data.yaml"
    script:
        "../scripts/pass_pilot.py"
