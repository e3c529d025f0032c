# Stage pilot: a short training on part of the rows, and a decision whether the long one is worth its time.
#
# needs    the first experiment's base and tokens, the plan
# leaves   pilot/{adapters.safetensors,adapter_config.json,metrics.jsonl,summary.json}, subset-<fraction>/ with the same
#          files, dry_run.json, decision.json, index.html; go, after a go
# steps    dry_run_pilot (ten rows through the whole chain), train_pilot, train_subset (for the learning curve),
#          decide_pilot, pass_pilot; write_pilot_report (the pilot's own page, also after a no-go)
# reads    rules.validate_rows, rules.split_rows (data.smk), rules.forecast_run (plan.smk)
#
# The full training takes `go` as ancient(): it is a permission. Other pilot settings never train again.
PILOT = this_run.pilot_experiment
PILOT_TOKENS = this_run.token_stores(PILOT)
SUBSETS = [fraction for fraction in CONFIG["pilot"]["learning_curve"] or [] if fraction < 1]  # 1 is the pilot itself


rule pilot:
    """Stage: a short training, then go or no-go."""
    input:
        f"{RUN}/pilot/decision.json",
        f"{RUN}/pilot/index.html",
        f"{RUN}/pilot/go",


rule dry_run_pilot:
    """Take ten rows through the whole chain: train, save, load, convert."""
    input:
        train=PILOT_TOKENS["train"],
        valid=PILOT_TOKENS["valid"],
        model=manifest(PILOT.model),
        plan=rules.forecast_run.output.plan,
    output:
        report=ensure(f"{RUN}/pilot/dry_run.json", non_empty=True),
    log:
        logs("dry_run_pilot"),
    benchmark:
        benchmarks("dry_run_pilot")
    conda:
        "../envs/gguf.yaml"
    threads: THREADS
    resources:
        gpu=gpu_share,
        mem_mb=model_memory,
        runtime=training_time,
    params:
        config=tracked(
            train=tracked_train(PILOT),
            model=pick(PILOT.model, "dtype"),
            seed=CONFIG["seed"],
        ),
        untracked=untracked(train=untracked_train(PILOT), **pick(CONFIG["package"], "gguf", "imatrix")),
        code=code("dry_run_pilot", "gguf"),
    script:
        scripts("dry_run_pilot")


rule train_pilot:
    """Train a pilot adapter on some of the rows, always with the built-in trainer."""
    input:
        train=PILOT_TOKENS["train"],
        valid=PILOT_TOKENS["valid"],
        model=manifest(PILOT.model),
        dry_run=rules.dry_run_pilot.output.report,
    output:
        adapter=ensure(f"{RUN}/pilot/adapters.safetensors", non_empty=True),
        adapter_config=f"{RUN}/pilot/adapter_config.json",
        metrics=f"{RUN}/pilot/metrics.jsonl",
        summary=ensure(f"{RUN}/pilot/summary.json", non_empty=True),
    log:
        logs("train_pilot"),
    benchmark:
        benchmarks("train_pilot")
    conda:
        f"../envs/{ENGINE}.yaml"
    threads: THREADS
    resources:
        gpu=gpu_share,
        mem_mb=model_memory,
        runtime=training_time,
    params:
        config=tracked(
            pilot=pick(CONFIG["pilot"], "rows", "max_steps"),
            train=tracked_train(PILOT),
            model=pick(PILOT.model, "dtype"),
            seed=CONFIG["seed"],
        ),
        untracked=untracked(train=untracked_train(PILOT)),
        code=code("train_pilot", ENGINE),
    script:
        scripts("train_pilot")


rule train_subset:
    """Train on a fraction of the pilot's rows, a point of the learning curve."""
    input:
        train=PILOT_TOKENS["train"],
        valid=PILOT_TOKENS["valid"],
        model=manifest(PILOT.model),
        dry_run=rules.dry_run_pilot.output.report,
    output:
        adapter=ensure(f"{RUN}/pilot/subset-{{fraction}}/adapters.safetensors", non_empty=True),
        adapter_config=f"{RUN}/pilot/subset-{{fraction}}/adapter_config.json",
        metrics=f"{RUN}/pilot/subset-{{fraction}}/metrics.jsonl",
        summary=ensure(f"{RUN}/pilot/subset-{{fraction}}/summary.json", non_empty=True),
    log:
        logs("train_subset-{fraction}"),
    benchmark:
        benchmarks("train_subset-{fraction}")
    conda:
        f"../envs/{ENGINE}.yaml"
    threads: THREADS
    resources:
        gpu=gpu_share,
        mem_mb=model_memory,
        runtime=training_time,
    params:
        config=tracked(
            fraction=lambda wildcards: float(wildcards.fraction),
            pilot=pick(CONFIG["pilot"], "rows", "max_steps"),
            train=tracked_train(PILOT),
            model=pick(PILOT.model, "dtype"),
            seed=CONFIG["seed"],
        ),
        untracked=untracked(train=untracked_train(PILOT)),
        code=code("train_subset", ENGINE),
    script:
        scripts("train_subset")


rule decide_pilot:
    """Hold the pilot against the criteria for a go, and forecast the full run from what it took."""
    input:
        adapter=rules.train_pilot.output.adapter,
        adapter_config=rules.train_pilot.output.adapter_config,
        metrics=rules.train_pilot.output.metrics,
        summary=rules.train_pilot.output.summary,
        dry_run=rules.dry_run_pilot.output.report,
        curve=expand(rules.train_subset.output.summary, fraction=SUBSETS),
        train=PILOT_TOKENS["train"],
        valid=PILOT_TOKENS["valid"],
        rows=rules.split_rows.output.valid,
        model=manifest(PILOT.model),
        plan=rules.forecast_run.output.plan,
    output:
        decision=report(
            ensure(f"{RUN}/pilot/decision.json", non_empty=True),
            category="Pilot",
            caption="../report/captions/decision.rst",
        ),
    log:
        logs("decide_pilot"),
    benchmark:
        benchmarks("decide_pilot")
    conda:
        f"../envs/{ENGINE}.yaml"
    threads: THREADS
    resources:
        gpu=gpu_share,
        mem_mb=model_memory,
        runtime=evaluation_time,
    params:
        config=tracked(
            experiment=PILOT.name,
            pilot=CONFIG["pilot"],
            rows_per_step=PILOT.train.rows_per_step,
            model=PILOT.model,
            seed=CONFIG["seed"],
        ),
        # settings of later stages, for the forecast only
        untracked=untracked(
            **pick(CONFIG["evaluate"], "max_rows", "max_new_tokens", "max_hours"),
            general_rows=CONFIG["evaluate"]["forgetting"]["rows"],
            variants=this_run.variants,
            **pick(CONFIG["package"], "gguf", "imatrix", "mlx", "fidelity"),
            threads=THREADS,
        ),
        code=code("decide_pilot", ENGINE),
    script:
        scripts("decide_pilot")


rule pass_pilot:
    """Gate: let the training begin after a go; stop the run after a no-go."""
    input:
        decision=rules.decide_pilot.output.decision,
    output:
        go=f"{RUN}/pilot/go",
    log:
        logs("pass_pilot"),
    retries: 0
    conda:
        "../envs/data.yaml"
    params:
        config=tracked(pilot=pick(CONFIG["pilot"], "on_no_go")),
        code=code("pass_pilot", "data"),
    script:
        scripts("pass_pilot")


rule write_pilot_report:
    """Write the pilot's page, after a go and after a no-go."""
    input:
        rules.validate_rows.output.report,
        rules.forecast_run.output.plan,
        rules.train_pilot.output.metrics,
        rules.train_pilot.output.summary,
        rules.decide_pilot.output.decision,
    output:
        page=ensure(f"{RUN}/pilot/index.html", non_empty=True),
    log:
        logs("write_pilot_report"),
    conda:
        "../envs/report.yaml"
    params:
        config=tracked(base=PILOT.model.base),
        code=code("write_pilot_report", "report"),
    script:
        scripts("write_pilot_report")
