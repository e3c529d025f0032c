# Stage evaluate: every variant of the model answers the same test rows, and each is compared with the base.
#
# needs    the test rows, the base, the chosen adapter, the fused model, the GGUF files
# leaves   evaluation/<variant>/{predictions.jsonl,scores.json}, general.jsonl with a general set, prompts.jsonl with
#          prompts of one's own; evaluation/comparison.json; evaluation/thresholds.passed, where a missed threshold stops
#          evaluation/experiments.json, where evaluate.experiments asks for a bake-off
# steps    open_test_rows where they are sealed, generate_answers, score_answers, compare_scores, pass_thresholds;
#          compare_experiments; on request export_lm_eval, run_lm_eval (target lm_eval)
# reads    CHOSEN_ADAPTER, rules.train_adapter, rules.score_experiment (train.smk), rules.split_rows (data.smk), rules.fuse_adapter (package.smk),
#          GENERAL_SET, variant_inputs, answer_files, lm_eval_rows (evaluate_inputs.smk), PILOT (pilot.smk)
VARIANTS = this_run.variants
ZERO_LINES = [variant for variant in VARIANTS if variant in ("base", "prompted")]  # no training has changed them
BAKE_OFF = [f"{RUN}/evaluation/experiments.json"] if CONFIG["evaluate"]["experiments"] else []


rule evaluate:
    """Stage: answer and score the test rows with every variant, and compare them."""
    input:
        f"{RUN}/evaluation/comparison.json",
        BAKE_OFF,
        expand(f"{RUN}/evaluation/{{variant}}/{{file}}", variant=VARIANTS, file=["predictions.jsonl", "scores.json"]),
        f"{RUN}/evaluation/thresholds.passed" if CONFIG["evaluate"]["on_missed_threshold"] == "stop" else [],


rule open_test_rows:
    """Open the sealed test rows for the chosen adapter, once."""
    input:
        rows=rules.split_rows.output.test,
        adapter=CHOSEN_ADAPTER,
    output:
        use=ensure(f"{RUN}/evaluation/opened.json", non_empty=True),
    log:
        logs("open_test_rows"),
    retries: 0
    conda:
        "../envs/data.yaml"
    params:
        code=code("open_test_rows", "data"),
    script:
        scripts("open_test_rows")


rule generate_answers:
    """Generate answers to the test rows with one variant, and compute the log-likelihood of the references."""
    input:
        unpack(variant_inputs),
    output:
        **answer_files(f"{RUN}/evaluation/{{variant}}"),
    log:
        logs("generate_answers-{variant}"),
    benchmark:
        benchmarks("generate_answers-{variant}")
    conda:
        "../envs/gguf.yaml"
    threads: THREADS
    resources:
        gpu=gpu_share,
        mem_mb=model_memory,
        runtime=evaluation_time,
    params:
        config=lambda wildcards: configuration.canonical(
            msgspec.to_builtins(evaluate_settings.prediction_config(this_run.config, PILOT, wildcards.variant))
        ),
        code=code("generate_answers", "gguf"),
    script:
        scripts("generate_answers")


rule score_answers:
    """Score one variant's answers, with confidence intervals."""
    input:
        similarity=this_run.similarity_model or [],
        predictions=rules.generate_answers.output.predictions,
    output:
        scores=ensure(f"{RUN}/evaluation/{{variant}}/scores.json", non_empty=True),
    log:
        logs("score_answers-{variant}"),
    benchmark:
        benchmarks("score_answers-{variant}")
    conda:
        "../envs/gguf.yaml"
    params:
        config=tracked_record(evaluate_settings.scoring_config(this_run.config)),
        code=code("score_answers", "gguf"),
    script:
        scripts("score_answers")


rule compare_scores:
    """Compare the variants with each other by paired tests."""
    input:
        predictions=expand(rules.generate_answers.output.predictions, variant=VARIANTS),
        scores=expand(rules.score_answers.output.scores, variant=VARIANTS),
        general=expand(f"{RUN}/evaluation/{{variant}}/general.jsonl", variant=VARIANTS) if GENERAL_SET else [],
    output:
        comparison=report(
            ensure(f"{RUN}/evaluation/comparison.json", non_empty=True),
            category="Scores",
            caption="../report/captions/comparison.rst",
        ),
        table=f"{RUN}/evaluation/comparison.csv",
    log:
        logs("compare_scores"),
    benchmark:
        benchmarks("compare_scores")
    conda:
        "../envs/report.yaml"
    params:
        config=tracked_record(evaluate_settings.comparison_config(this_run.config)),
        code=code("compare_scores", "report"),
    script:
        scripts("compare_scores")


rule compare_experiments:
    """Compare all experiments on the test rows with each other and with the base that was not trained."""
    input:
        predictions=expand(rules.score_experiment.output.predictions, experiment=this_run.experiments, split="test"),
        scores=expand(rules.score_experiment.output.scores, experiment=this_run.experiments, split="test"),
        zero_predictions=expand(rules.generate_answers.output.predictions, variant=ZERO_LINES),
        zero_scores=expand(rules.score_answers.output.scores, variant=ZERO_LINES),
        summaries=this_run.experiment_files("summary.json"),
        adapters=this_run.experiment_files("adapters.safetensors"),
    output:
        comparison=ensure(f"{RUN}/evaluation/experiments.json", non_empty=True),
    log:
        logs("compare_experiments"),
    benchmark:
        benchmarks("compare_experiments")
    conda:
        "../envs/report.yaml"
    params:
        config=tracked(
            methods=this_run.methods,
            **pick(evaluate_settings.comparison_config(this_run.config), "settings", "seed"),
            measure=this_run.config.select.metric,
        ),
        code=code("compare_experiments", "report"),
    script:
        scripts("compare_experiments")


rule lm_eval:
    """On request: score base and fused model with lm-evaluation-harness, where it is installed."""
    input:
        f"{RUN}/lm_eval/results.json",


rule export_lm_eval:
    """Export the test rows as a task of lm-evaluation-harness."""
    input:
        rows=lm_eval_rows,
        model=CHOSEN_BASE,
        opened=ancient(f"{RUN}/evaluation/opened.json") if CONFIG["data"]["split"]["sealed"] else [],
    output:
        task=directory(f"{RUN}/lm_eval/task"),
    log:
        logs("export_lm_eval"),
    conda:
        "../envs/data.yaml"
    params:
        config=tracked(
            model=pick(PILOT.model, "chat_template"),
            evaluate=pick(CONFIG["evaluate"], "max_new_tokens"),
        ),
        code=code("export_lm_eval", "data"),
    script:
        scripts("export_lm_eval")


rule run_lm_eval:
    """Run the task and named ones on base and fused model, and compare them in pairs."""
    input:
        task=rules.export_lm_eval.output.task,
        rows=rules.split_rows.output.test,
        model=CHOSEN_BASE,
        fused=rules.fuse_adapter.output.manifest,
    output:
        results=ensure(f"{RUN}/lm_eval/results.json", non_empty=True),
    log:
        logs("run_lm_eval"),
    benchmark:
        benchmarks("run_lm_eval")
    conda:
        "../envs/data.yaml"
    threads: CONFIG["threads"]
    resources:
        mem_mb=model_memory,
        runtime=evaluation_time,
    params:
        config=tracked(evaluate=pick(CONFIG["evaluate"], "lm_eval_tasks")),
        code=code("run_lm_eval", "data"),
    script:
        scripts("run_lm_eval")


rule pass_thresholds:
    """Gate: stop the run if a threshold or the limit of forgetting is missed."""
    input:
        comparison=rules.compare_scores.output.comparison,
    output:
        passed=f"{RUN}/evaluation/thresholds.passed",
    log:
        logs("pass_thresholds"),
    benchmark:
        benchmarks("pass_thresholds")
    retries: 0
    conda:
        "../envs/report.yaml"
    params:
        code=code("pass_thresholds", "report"),
    script:
        scripts("pass_thresholds")
