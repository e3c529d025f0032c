# Stage report: what was run and what came out, on one page.
#
# needs    the files of all stages
# leaves   config.json, run.json, report/index.html, report/report.json, report/human_eval.html
# steps    save_config, record_run, write_report; on request compare_runs (target runs, over all runs that are here)


rule report:
    input:
        f"{RUN}/report/index.html",
        f"{RUN}/config.json",
        f"{RUN}/run.json",
        f"{RUN}/model/README.md",
        f"{RUN}/data/leaks.passed",
        f"{RUN}/model/fidelity.passed",
        rules.serve_check.output if CONFIG["package"]["serve_check"] else [],


rule runs:
    input:
        "results/runs.html",


rule save_config:
    output:
        config=ensure(f"{RUN}/config.json", non_empty=True),
    log:
        f"{RUN}/logs/save_config.log",
    conda:
        "../envs/data.yaml"
    params:
        config=settings(**CONFIG),
        code=code("save_config", "data"),
    script:
        "../scripts/save_config.py"


rule record_run:
    input:
        config=rules.save_config.output.config,
        sources=SOURCES,
        model=BASE,
        template=lambda wildcards: sorted(
            {file for one in EXPERIMENTS.values() for file in template_file(one["model"])}
        ),
        fused=rules.fuse_adapter.output.manifest,
        products=[gguf(kind) for kind in TYPES],
    output:
        record=ensure(f"{RUN}/run.json", non_empty=True),
    log:
        f"{RUN}/logs/record_run.log",
    conda:
        "../envs/data.yaml"
    params:
        config=settings(model=only(FIRST["model"], "chat_template")),
        code=code("record_run", "data"),
    script:
        "../scripts/record_run.py"


rule write_report:
    input:
        rules.save_config.output,
        rules.record_run.output,
        rules.validate_rows.output.report,
        rules.validate_rows.output.rejected,
        rules.split_rows.output.split,
        rules.check_leaks.output,
        rules.forecast_run.output,
        rules.decide_pilot.output,
        rules.select_experiment.output.selection,
        adapter_files("summary.json"),
        adapter_files("metrics.jsonl"),
        rules.fuse_adapter.output.manifest,
        rules.write_modelfile.output,
        rules.check_fidelity.output,
        rules.serve_file.output if CONFIG["package"]["serve_check"] else [],
        rules.compare_scores.output,
        rules.compare_scores.input,
        expand(rules.tokenize_rows.output.verdicts, tokens=TOKENS),
        expand(f"{RUN}/evaluation/{{artefact}}/prompts.jsonl", artefact=ARTEFACTS)
        if CONFIG["evaluate"]["prompts"]
        else [],
        [gguf(kind) for kind in TYPES],
        sorted(map(str, Path(RUN, "votes").glob("*.json"))),
    output:
        page=report(
            f"{RUN}/report/index.html",
            category="Report",
            caption="../report/captions/report.rst",
            htmlindex="index.html",
        ),
        facts=ensure(f"{RUN}/report/report.json", non_empty=True),
        human_eval=report(
            ensure(f"{RUN}/report/human_eval.html", non_empty=True),
            category="Report",
            caption="../report/captions/human_eval.rst",
        ),
    log:
        f"{RUN}/logs/write_report.log",
    benchmark:
        f"{RUN}/benchmarks/write_report.tsv"
    conda:
        "../envs/report.yaml"
    params:
        code=code("write_report", "report"),
    script:
        "../scripts/write_report.py"


rule compare_runs:
    input:
        reports=sorted(map(str, Path("results").glob("*/report/report.json"))),
    output:
        page=report(
            ensure("results/runs.html", non_empty=True),
            category="Report",
            caption="../report/captions/runs.rst",
        ),
        facts=ensure("results/runs.json", non_empty=True),
    log:
        "results/logs/compare_runs.log",
    conda:
        "../envs/report.yaml"
    params:
        config=settings(seed=CONFIG["seed"]),
        code=code("compare_runs", "report"),
    script:
        "../scripts/compare_runs.py"
