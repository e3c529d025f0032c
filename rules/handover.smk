# Handing over: the model card, and on request a serving check, Ollama and the hub.
#
# needs    the products, their fidelity and their scores
# leaves   model/README.md; on request model/served.json and a stamp after its gate (model/timing.json beside it, which
#          differs from run to run, is declared nowhere), model/ollama.json, model/uploaded.json
# steps    write_card; serve_file, serve_check, register_ollama (target ollama), upload_model (target upload)
DEPLOYED = f"{RUN}/evaluation/gguf-{TYPES[0]}/predictions.jsonl"


rule ollama:
    input:
        f"{RUN}/model/ollama.json",


rule upload:
    input:
        f"{RUN}/model/uploaded.json",


rule write_card:
    input:
        manifest=rules.fuse_adapter.output.manifest,
        fidelity=rules.check_fidelity.output.fidelity,
        split=rules.split_rows.output.split,
        selection=rules.select_experiment.output.selection,
        summaries=adapter_files("summary.json"),
        comparison=rules.compare_scores.output.comparison,
    output:
        card=ensure(f"{RUN}/model/README.md", non_empty=True),
    log:
        f"{RUN}/logs/write_card.log",
    conda:
        "../envs/report.yaml"
    params:
        config=settings(
            run=CONFIG["run"],
            experiments=[
                one | {"summary": f"{RUN}/train/{one['experiment']}/summary.json"}
                for one in experiments_in_order(*WITHOUT_EFFECT)
            ],
            package=only(CONFIG["package"], "gguf", "name", "license", "language"),
            data=only(CONFIG["data"], "sources"),
        ),
        code=code("write_card", "report"),
    script:
        "../scripts/write_card.py"


rule serve_file:
    input:
        gguf=gguf(TYPES[0]),
        predictions=DEPLOYED,
        rows=rules.split_rows.output.test,
    output:
        served=ensure(f"{RUN}/model/served.json", non_empty=True),
    log:
        f"{RUN}/logs/serve_file.log",
    benchmark:
        f"{RUN}/benchmarks/serve_file.tsv"
    conda:
        "../envs/gguf.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
    params:
        config=settings(
            package=only(CONFIG["package"], "fidelity", "serve_timeout"),
            evaluate=only(CONFIG["evaluate"], "max_new_tokens"),
        ),
        code=code("serve_file", "gguf"),
    script:
        "../scripts/serve_file.py"


rule serve_check:
    input:
        served=rules.serve_file.output.served,
    output:
        passed=f"{RUN}/model/served.passed",
    log:
        f"{RUN}/logs/serve_check.log",
    conda:
        "../envs/gguf.yaml"
    params:
        code=code("serve_check", "gguf"),
    script:
        "../scripts/serve_check.py"


rule register_ollama:
    input:
        modelfile=rules.write_modelfile.output.modelfile,
        predictions=DEPLOYED,
        rows=rules.split_rows.output.test,
    output:
        registered=ensure(f"{RUN}/model/ollama.json", non_empty=True),
    log:
        f"{RUN}/logs/register_ollama.log",
    conda:
        "../envs/gguf.yaml"
    resources:
        gpu=GPU,
    params:
        config=settings(
            run=CONFIG["run"],
            package=only(CONFIG["package"], "name", "fidelity", "serve_timeout"),
            evaluate=only(CONFIG["evaluate"], "max_new_tokens"),
        ),
        code=code("register_ollama", "gguf"),
    script:
        "../scripts/register_ollama.py"


rule upload_model:
    input:
        card=rules.write_card.output.card,
        products=[gguf(kind) for kind in TYPES],
        fidelity=rules.check_fidelity.output.fidelity,
        passed=rules.pass_fidelity.output.passed,
    output:
        uploaded=ensure(f"{RUN}/model/uploaded.json", non_empty=True),
    log:
        f"{RUN}/logs/upload_model.log",
    conda:
        "../envs/gguf.yaml"
    params:
        config=settings(package=only(CONFIG["package"], "upload")),
        code=code("upload_model", "gguf"),
    script:
        "../scripts/upload_model.py"
