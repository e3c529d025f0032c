# Stage report: what was run and what came out, on one page.
#
# needs    the files of all stages
# leaves   config.json, run.json, report/index.html, report/report.json, report/experiments.csv,
#          report/human_eval.html
# steps    save_config, record_run, write_report; on request compare_runs (target runs, over all runs that are here) and
#          bundle_run (target bundle, leaves <run>.zip)
# reads    CHOSEN_BASE (train.smk), PILOT (pilot.smk), GGUF_TYPES (package.smk), VARIANTS, BAKE_OFF (evaluate.smk), rules of all stages


rule report:
    """Stage: one page that says what came out."""
    input:
        f"{RUN}/report/index.html",
        f"{RUN}/config.json",
        f"{RUN}/run.json",
        f"{RUN}/model/README.md",
        f"{RUN}/data/leaks.passed",
        f"{RUN}/model/fidelity.passed",
        rules.pass_serving.output if CONFIG["package"]["serve_check"] else [],


rule runs:
    """On request: compare all runs that have a report, on one page."""
    input:
        f"{RESULTS}/runs.html",


rule bundle:
    """On request: put the run into one archive, to be proven and run again elsewhere."""
    input:
        f"{RUN}/{this_run.name}.zip",


rule save_config:
    """Write the complete, validated configuration of this run."""
    output:
        config=ensure(f"{RUN}/config.json", non_empty=True),
    log:
        logs("save_config"),
    conda:
        "../envs/data.yaml"
    params:
        config=tracked(**CONFIG),
        code=code("save_config", "data"),
    script:
        scripts("save_config")


rule record_run:
    """Write run.json: versions, code, inputs, seeds, model."""
    input:
        config=rules.save_config.output.config,
        sources=this_run.sources,
        model=CHOSEN_BASE,
        template=this_run.template_files,
        fused=rules.fuse_adapter.output.manifest,
        opened=f"{RUN}/evaluation/opened.json" if CONFIG["data"]["split"]["sealed"] else [],
        products=[*(this_run.gguf(kind) for kind in GGUF_TYPES), *this_run.mlx_manifests],
    output:
        record=ensure(f"{RUN}/run.json", non_empty=True),
    log:
        logs("record_run"),
    conda:
        "../envs/data.yaml"
    params:
        config=tracked(model=pick(PILOT.model, "chat_template")),
        code=code("record_run", "data"),
    script:
        scripts("record_run")


rule write_report:
    """Write the run's page, the same facts as JSON, and the form for blind ratings."""
    input:
        rules.save_config.output,
        rules.record_run.output,
        rules.validate_rows.output.report,
        rules.validate_rows.output.rejected,
        rules.split_rows.output.split,
        rules.split_rows.output.test,
        rules.check_leaks.output,
        rules.forecast_run.output,
        rules.decide_pilot.output,
        rules.select_experiment.output,
        rules.export_adapter.output.lora if this_run.exports_adapter else [],
        this_run.experiment_files("summary.json"),
        this_run.experiment_files("metrics.jsonl"),
        rules.fuse_adapter.output.manifest,
        rules.write_modelfile.output,
        rules.check_fidelity.output,
        [rules.check_serving.output, rules.check_prompts.output] if CONFIG["package"]["serve_check"] else [],
        rules.compare_scores.output,
        rules.compare_scores.input,
        BAKE_OFF,
        expand(rules.tokenize_rows.output.report, tokens=this_run.tokenizations),
        expand(f"{RUN}/evaluation/{{variant}}/prompts.jsonl", variant=VARIANTS) if CONFIG["evaluate"]["prompts"] else [],
        [this_run.gguf(kind) for kind in GGUF_TYPES],
        [this_run.imatrix_record(kind) for kind in this_run.imatrix_types],
        this_run.mlx_manifests,
        sorted(map(str, Path(RUN, "votes").glob("*.json"))),
    output:
        page=report(
            f"{RUN}/report/index.html",
            category="Report",
            caption="../report/captions/report.rst",
            htmlindex="index.html",
        ),
        facts=ensure(f"{RUN}/report/report.json", non_empty=True),
        experiments=ensure(f"{RUN}/report/experiments.csv", non_empty=True),
        human_eval=report(
            ensure(f"{RUN}/report/human_eval.html", non_empty=True),
            category="Report",
            caption="../report/captions/human_eval.rst",
        ),
    log:
        logs("write_report"),
    benchmark:
        benchmarks("write_report")
    conda:
        "../envs/report.yaml"
    params:
        # on request: as inputs, the model would be put into Ollama and judged by lm-eval without being asked for
        config=tracked(
            ollama=lambda _: digest_of_optional(f"{RUN}/model/ollama.json"),
            lm_eval=lambda _: digest_of_optional(f"{RUN}/lm_eval/results.json"),
        ),
        code=code("write_report", "report"),
    script:
        scripts("write_report")


rule bundle_run:
    """Put the run into one archive."""
    input:
        rules.data.input,
        rules.plan.input,
        rules.pilot.input,
        rules.train.input,
        rules.package.input,
        rules.evaluate.input,
        rules.report.input,
        inputs=this_run.input_files if "inputs" in CONFIG["package"]["bundle"] else [],
    output:
        bundle=ensure(f"{RUN}/{this_run.name}.zip", non_empty=True),
    log:
        logs("bundle_run"),
    conda:
        "../envs/data.yaml"
    params:
        config=tracked(package=pick(CONFIG["package"], "bundle")),
        code=code("bundle_run", "data"),
    script:
        scripts("bundle_run")


rule compare_runs:
    """Compare all runs that have a report, on one page."""
    input:
        reports=sorted(map(str, Path(RESULTS).glob("*/report/report.json"))),
    output:
        page=report(
            ensure(f"{RESULTS}/runs.html", non_empty=True),
            category="Report",
            caption="../report/captions/runs.rst",
        ),
        facts=ensure(f"{RESULTS}/runs.json", non_empty=True),
        table=ensure(f"{RESULTS}/runs.csv", non_empty=True),
    log:
        logs("compare_runs", RESULTS),
    conda:
        "../envs/report.yaml"
    params:
        config=tracked(seed=CONFIG["seed"]),
        code=code("compare_runs", "report"),
    script:
        scripts("compare_runs")
