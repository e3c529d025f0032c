# Deploying: the model card, and on request a check of serving, Ollama and the hub.
#
# needs    the products, their fidelity and their scores
# leaves   model/README.md; on request model/served.json and served.passed after its gate (model/timing.json beside it,
#          which differs from run to run, is declared nowhere), model/prompts.json, model/ollama.json, model/uploaded.json
# steps    write_card; check_serving, check_prompts, pass_serving, register_ollama (target ollama), upload_model (target
#          upload)
# reads    CHOSEN_BASE (train.smk), PILOT (pilot.smk), GGUF_TYPES, rules.fuse_adapter, rules.check_fidelity, rules.pass_fidelity, rules.write_modelfile (package.smk),
#          rules.select_experiment (train.smk), rules.compare_scores (evaluate.smk), rules.split_rows (data.smk)
DEPLOYED_GGUF = this_run.gguf(GGUF_TYPES[0])
DEPLOYED_PREDICTIONS = f"{RUN}/evaluation/gguf-{GGUF_TYPES[0]}/predictions.jsonl"


rule ollama:
    """On request: create the model in Ollama."""
    input:
        f"{RUN}/model/ollama.json",


rule upload:
    """On request: upload the model to the hub."""
    input:
        f"{RUN}/model/uploaded.json",


rule write_card:
    """Write the model card from what was measured."""
    input:
        manifest=rules.fuse_adapter.output.manifest,
        fidelity=rules.check_fidelity.output.fidelity,
        split=rules.split_rows.output.split,
        selection=rules.select_experiment.output.selection,
        summaries=this_run.experiment_files("summary.json"),
        comparison=rules.compare_scores.output.comparison,
    output:
        card=ensure(f"{RUN}/model/README.md", non_empty=True),
    log:
        logs("write_card"),
    conda:
        "../envs/report.yaml"
    params:
        config=tracked(
            run=CONFIG["run"],
            experiments=[
                {
                    "experiment": one.name,
                    "train": tracked_train(one),
                    "summary": this_run.candidate_files(one.name)["summary"],
                }
                for one in this_run.experiments.values()
            ],
            package=pick(CONFIG["package"], "gguf", "mlx", "name", "license", "language"),
            data=pick(CONFIG["data"], "sources"),
        ),
        code=code("write_card", "report"),
    script:
        scripts("write_card")


rule check_serving:
    """Serve the first GGUF type over HTTP and repeat the evaluation's requests."""
    input:
        gguf=DEPLOYED_GGUF,
        predictions=DEPLOYED_PREDICTIONS,
        rows=rules.split_rows.output.test,
    output:
        served=ensure(f"{RUN}/model/served.json", non_empty=True),
    log:
        logs("check_serving"),
    benchmark:
        benchmarks("check_serving")
    conda:
        "../envs/gguf.yaml"
    threads: THREADS
    resources:
        gpu=gpu_share,
    params:
        config=tracked(
            package=pick(CONFIG["package"], "fidelity", "serve_timeout"),
            evaluate=pick(CONFIG["evaluate"], "max_new_tokens"),
        ),
        code=code("check_serving", "gguf"),
    script:
        scripts("check_serving")


rule check_prompts:
    """Compare what each server that is here feeds its model with what was trained."""
    input:
        gguf=DEPLOYED_GGUF,
        model=CHOSEN_BASE,
        manifest=this_run.mlx_manifests[0] if this_run.mlx_manifests else rules.fuse_adapter.output.manifest,
    output:
        prompts=ensure(f"{RUN}/model/prompts.json", non_empty=True),
    log:
        logs("check_prompts"),
    benchmark:
        benchmarks("check_prompts")
    conda:
        "../envs/gguf.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=gpu_share,
    params:
        config=tracked(
            package=pick(CONFIG["package"], "serve_timeout"),
            model=pick(PILOT.model, "chat_template"),
        ),
        code=code("check_prompts", "gguf"),
    script:
        scripts("check_prompts")


rule pass_serving:
    """Gate: stop the run if the GGUF could not be served, or a server feeds its model other text than was trained."""
    input:
        served=rules.check_serving.output.served,
        prompts=rules.check_prompts.output.prompts,
    output:
        passed=f"{RUN}/model/served.passed",
    log:
        logs("pass_serving"),
    retries: 0
    conda:
        "../envs/gguf.yaml"
    params:
        code=code("pass_serving", "gguf"),
    script:
        scripts("pass_serving")


rule register_ollama:
    """Create the model in Ollama, where it is installed, and repeat the evaluation's requests."""
    input:
        modelfile=rules.write_modelfile.output.modelfile,
        model=CHOSEN_BASE,
        predictions=DEPLOYED_PREDICTIONS,
        rows=rules.split_rows.output.test,
    output:
        registered=ensure(f"{RUN}/model/ollama.json", non_empty=True),
    log:
        logs("register_ollama"),
    conda:
        "../envs/gguf.yaml"
    resources:
        gpu=gpu_share,
    params:
        config=tracked(
            run=CONFIG["run"],
            model=pick(PILOT.model, "chat_template"),
            package=pick(CONFIG["package"], "name", "fidelity", "serve_timeout"),
            evaluate=pick(CONFIG["evaluate"], "max_new_tokens"),
        ),
        code=code("register_ollama", "gguf"),
    script:
        scripts("register_ollama")


rule upload_model:
    """Upload the GGUF files, the folders for MLX and the card to the hub."""
    input:
        card=rules.write_card.output.card,
        products=[*(this_run.gguf(kind) for kind in GGUF_TYPES), *this_run.mlx_folders],
        fidelity=rules.check_fidelity.output.fidelity,
        passed=rules.pass_fidelity.output.passed,
    output:
        uploaded=ensure(f"{RUN}/model/uploaded.json", non_empty=True),
    log:
        logs("upload_model"),
    conda:
        "../envs/gguf.yaml"
    params:
        config=tracked(package=pick(CONFIG["package"], "upload")),
        code=code("upload_model", "gguf"),
    script:
        scripts("upload_model")
