# Stage plan: will it fit, how long will it take, will the result convert - before anything is trained.
#
# needs    the base's configuration and tokenizer (not its weights); the tokenised splits
# leaves   plan.json
# steps    forecast_run


rule plan:
    input:
        f"{RUN}/plan.json",


rule forecast_run:
    input:
        model=lambda wildcards: [f"{MODELS}/{key}.config.json" for key in PLAIN],
        stores=lambda wildcards: [stores(model)["train"] for model in TOKENS.values()],
        tokens=expand(f"{RUN}/data/tokens/{{tokens}}/tokens.json", tokens=TOKENS),
    output:
        plan=ensure(f"{RUN}/plan.json", non_empty=True),
    log:
        f"{RUN}/logs/forecast_run.log",
    benchmark:
        f"{RUN}/benchmarks/forecast_run.tsv"
    conda:
        "../envs/mlx.yaml"
    params:
        config=settings(
            experiments=experiments_in_order(*set(WITHOUT_EFFECT) - {"memory_limit"}),
            data=only(CONFIG["data"], "max_length"),
            seed=CONFIG["seed"],
        ),
        later=lambda wildcards, input: settings_text(package=only(CONFIG["package"], "gguf", "adapter")),
        code=code("forecast_run", "mlx"),
    script:
        "../scripts/forecast_run.py"
