# Stage model: the bases, each with a manifest that stands for its files, and the splits as token ids.
#
# needs    the bases of the configuration; the splits
# leaves   outside any run, results/models/<key>.config.json and <key>.json (and the files of fetched or built models);
#          data/tokens/<key>/{train,valid,test}.safetensors and tokens.json; on request data/preview.{json,html}
# steps    build_demo, fetch_config, fetch_model, quantize_base, tokenize_rows, preview_rows; preview on request
# reads    rules.split_rows (data.smk); plan.json, by its name, since the plan stands behind the tokens


rule build_demo:
    """Pretrain the demo's tiny base model."""
    output:
        DEMO_FILES,
    log:
        logs("build_demo", MODELS),
    benchmark:
        benchmarks("build_demo", MODELS)
    conda:
        "../envs/mlx.yaml"
    resources:
        gpu=gpu_share,
    params:
        code=code("build_demo", "mlx"),
    script:
        scripts("build_demo")


rule fetch_config:
    """Download the configuration and tokenizer of a base, or read them from its folder, and describe them."""
    input:
        lambda wildcards: base_files(wildcards.model, weights=False),
    output:
        manifest=ensure(f"{MODELS}/{{model}}.config.json", non_empty=True),
    log:
        logs("fetch_config-{model}", MODELS),
    benchmark:
        benchmarks("fetch_config-{model}", MODELS)
    wildcard_constraints:
        model=one_of(this_run.unquantized_bases),
    conda:
        "../envs/mlx.yaml"
    params:
        config=tracked(
            model=lambda wildcards: pick(this_run.unquantized_bases[wildcards.model], "base", "revision", "quantize")
        ),
        code=code("fetch_config", "mlx"),
    script:
        scripts("fetch_config")


# the plan is a permission: no weights are fetched for a run that does not fit; those that are there need none
rule fetch_model:
    """Download the weights of a base, or check those in its folder, and describe the whole model."""
    input:
        lambda wildcards: (base_files(wildcards.model, weights=True) or f"{MODELS}/{wildcards.model}.config.json"),
        plan=lambda wildcards: (
            [] if Path(MODELS, f"{wildcards.model}.json").is_file() else ancient(f"{RUN}/plan.json")
        ),
    output:
        manifest=ensure(f"{MODELS}/{{model}}.json", non_empty=True),
    log:
        logs("fetch_model-{model}", MODELS),
    benchmark:
        benchmarks("fetch_model-{model}", MODELS)
    wildcard_constraints:
        model=one_of(this_run.unquantized_bases),
    conda:
        "../envs/mlx.yaml"
    params:
        config=tracked(
            model=lambda wildcards: pick(this_run.unquantized_bases[wildcards.model], "base", "revision", "quantize")
        ),
        code=code("fetch_model", "mlx"),
    script:
        scripts("fetch_model")


rule quantize_base:
    """Quantize a base, for QLoRA."""
    input:
        model=lambda wildcards: manifest(unquantized(this_run.base_models[wildcards.quantized])),
    output:
        folder=directory(f"{MODELS}/{{quantized}}"),
        manifest=ensure(f"{MODELS}/{{quantized}}.json", non_empty=True),
    log:
        logs("quantize_base-{quantized}", MODELS),
    benchmark:
        benchmarks("quantize_base-{quantized}", MODELS)
    wildcard_constraints:
        quantized=one_of(this_run.base_models.keys() - this_run.unquantized_bases.keys()),
    conda:
        f"../envs/{ENGINE}.yaml"
    resources:
        gpu=gpu_share,
        mem_mb=model_memory,
        runtime=packaging_time,
    params:
        config=tracked(model=lambda wildcards: this_run.base_models[wildcards.quantized]),
        code=code("quantize_base", ENGINE),
    script:
        scripts("quantize_base")


rule tokenize_rows:
    """Render the splits with one base's chat template and tokenize them once for all trainings."""
    input:
        train=rules.split_rows.output.train,
        valid=rules.split_rows.output.valid,
        test=rules.split_rows.output.test,
        model=lambda wildcards: config_manifest(this_run.tokenizations[wildcards.tokens].model),
        template=lambda wildcards: template_file(this_run.tokenizations[wildcards.tokens].model),
    output:
        train=f"{RUN}/data/tokens/{{tokens}}/train.safetensors",
        valid=f"{RUN}/data/tokens/{{tokens}}/valid.safetensors",
        test=f"{RUN}/data/tokens/{{tokens}}/test.safetensors",
        report=ensure(f"{RUN}/data/tokens/{{tokens}}/tokens.json", non_empty=True),
    log:
        logs("tokenize_rows-{tokens}"),
    benchmark:
        benchmarks("tokenize_rows-{tokens}")
    wildcard_constraints:
        tokens=one_of(this_run.tokenizations),
    conda:
        "../envs/mlx.yaml"
    params:
        config=tracked(
            model=lambda wildcards: template_config(this_run.tokenizations[wildcards.tokens]),
            data=FILTERING,
        ),
        code=code("tokenize_rows", "mlx"),
    script:
        scripts("tokenize_rows")


rule preview:
    """Stage on request: five training rows as the model reads them, with what is trained marked."""
    input:
        record=f"{RUN}/data/preview.json",
        page=f"{RUN}/data/preview.html",
    log:
        logs("preview"),
    conda:
        "../envs/mlx.yaml"
    params:
        code=code("preview", "mlx"),
    script:
        scripts("preview")


rule preview_rows:
    """Render a few training rows with the first experiment's base, without fetching its weights."""
    input:
        train=rules.split_rows.output.train,
        model=config_manifest(this_run.pilot_experiment.model),
        template=template_file(this_run.pilot_experiment.model),
    output:
        record=f"{RUN}/data/preview.json",
        page=f"{RUN}/data/preview.html",
    log:
        logs("preview_rows"),
    benchmark:
        benchmarks("preview_rows")
    conda:
        "../envs/mlx.yaml"
    params:
        config=tracked(
            run=this_run.name,
            model=template_config(this_run.pilot_experiment),
            data=FILTERING,
        ),
        code=code("preview_rows", "mlx"),
    script:
        scripts("preview_rows")
