# Stage plan: will it fit, how long will it take, will the result convert - before anything is trained.
#
# needs    the base's configuration and tokenizer (not its weights); the tokenized splits
# leaves   plan.json
# steps    forecast_run
# reads    rules.tokenize_rows (model.smk)


rule plan:
    """Stage: forecast memory, disk and length of the run."""
    input:
        f"{RUN}/plan.json",


rule forecast_run:
    """Forecast memory, disk and length of every experiment; stop if one does not fit or cannot be converted."""
    input:
        model=[config_manifest(model) for model in this_run.unquantized_bases.values()],
        stores=[this_run.token_stores(one)["train"] for one in this_run.tokenizations.values()],
        tokens=expand(rules.tokenize_rows.output.report, tokens=this_run.tokenizations),
    output:
        plan=ensure(f"{RUN}/plan.json", non_empty=True),
    log:
        logs("forecast_run"),
    benchmark:
        benchmarks("forecast_run")
    conda:
        f"../envs/{ENGINE}.yaml"
    params:
        config=tracked(
            experiments=[
                {
                    "name": one.name,
                    "train": tracked_train(one) | pick(one.train, "memory_limit"),
                    "model": one.model,
                    "seed": one.seed,
                }
                for one in this_run.experiments.values()
            ],
            engine=this_run.engine.name,
            **pick(CONFIG["data"], "max_length", "max_lost"),
            seed=CONFIG["seed"],
        ),
        untracked=untracked(
            train={one.name: untracked_train(one) for one in this_run.experiments.values()},
            **pick(CONFIG["package"], "gguf", "imatrix", "mlx", "adapter"),
            engine=this_run.engine,  # with the reason, which is told and changes nothing
        ),
        code=code("forecast_run", ENGINE),
    script:
        scripts("forecast_run")
