# Stage model: the bases, as manifests that stand for them, and the splits as token ids.
#
# needs    the bases of the configuration; the splits
# leaves   outside any run, results/models/<key>.config.json and <key>.json (and the files of fetched or built models);
#          data/tokens/<key>/{train,valid,test}.safetensors and tokens.json
# steps    build_demo, fetch_config, fetch_model, quantize_base, tokenize_rows


rule build_demo:
    output:
        expand(
            f"{MODELS}/demo/{{file}}",
            file=[
                "config.json",
                "generation_config.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "model.safetensors",
            ],
        ),
    log:
        f"{MODELS}/logs/build_demo.log",
    benchmark:
        f"{MODELS}/benchmarks/build_demo.tsv"
    conda:
        "../envs/mlx.yaml"
    resources:
        gpu=GPU,
    params:
        code=code("build_demo", "mlx"),
    script:
        "../scripts/build_demo.py"


rule fetch_config:
    input:
        lambda wildcards: base_inputs(wildcards.model, weights=False),
    output:
        manifest=ensure(f"{MODELS}/{{model}}.config.json", non_empty=True),
    log:
        f"{MODELS}/logs/fetch_config-{{model}}.log",
    benchmark:
        f"{MODELS}/benchmarks/fetch_config-{{model}}.tsv"
    wildcard_constraints:
        model=any_of(PLAIN),
    conda:
        "../envs/mlx.yaml"
    params:
        config=lambda wildcards: settings_text(model=only(PLAIN[wildcards.model], "base", "revision", "quantize")),
        code=code("fetch_config", "mlx"),
    script:
        "../scripts/fetch_config.py"


# the plan is a permission: no weights are fetched for a run that does not fit; those that are there need none
rule fetch_model:
    input:
        lambda wildcards: base_inputs(wildcards.model, weights=True),
        plan=lambda wildcards: (
            [] if Path(MODELS, f"{wildcards.model}.json").is_file() else ancient(f"{RUN}/plan.json")
        ),
    output:
        manifest=ensure(f"{MODELS}/{{model}}.json", non_empty=True),
    log:
        f"{MODELS}/logs/fetch_model-{{model}}.log",
    benchmark:
        f"{MODELS}/benchmarks/fetch_model-{{model}}.tsv"
    wildcard_constraints:
        model=any_of(PLAIN),
    conda:
        "../envs/mlx.yaml"
    params:
        config=lambda wildcards: settings_text(model=only(PLAIN[wildcards.model], "base", "revision", "quantize")),
        code=code("fetch_model", "mlx"),
    script:
        "../scripts/fetch_model.py"


rule quantize_base:
    input:
        model=lambda wildcards: f"{MODELS}/{base_models.plain_key(BASES[wildcards.quantized])}.json",
    output:
        folder=directory(f"{MODELS}/{{quantized}}"),
        manifest=ensure(f"{MODELS}/{{quantized}}.json", non_empty=True),
    log:
        f"{MODELS}/logs/quantize_base-{{quantized}}.log",
    benchmark:
        f"{MODELS}/benchmarks/quantize_base-{{quantized}}.tsv"
    wildcard_constraints:
        quantized=any_of(BASES.keys() - PLAIN.keys()),
    conda:
        "../envs/mlx.yaml"
    resources:
        gpu=GPU,
        mem_mb=model_memory,
        runtime=packaging_time,
    params:
        config=lambda wildcards: settings_text(model=BASES[wildcards.quantized]),
        code=code("quantize_base", "mlx"),
    script:
        "../scripts/quantize_base.py"


rule tokenize_rows:
    input:
        train=rules.split_rows.output.train,
        valid=rules.split_rows.output.valid,
        test=rules.split_rows.output.test,
        model=lambda wildcards: f"{MODELS}/{base_models.plain_key(TOKENS[wildcards.tokens])}.config.json",
        template=lambda wildcards: template_file(TOKENS[wildcards.tokens]),
    output:
        train=f"{RUN}/data/tokens/{{tokens}}/train.safetensors",
        valid=f"{RUN}/data/tokens/{{tokens}}/valid.safetensors",
        test=f"{RUN}/data/tokens/{{tokens}}/test.safetensors",
        verdicts=ensure(f"{RUN}/data/tokens/{{tokens}}/tokens.json", non_empty=True),
    log:
        f"{RUN}/logs/tokenize_rows-{{tokens}}.log",
    benchmark:
        f"{RUN}/benchmarks/tokenize_rows-{{tokens}}.tsv"
    wildcard_constraints:
        tokens=any_of(TOKENS),
    conda:
        "../envs/mlx.yaml"
    params:
        config=lambda wildcards: settings_text(
            model=only(TOKENS[wildcards.tokens], "chat_template"),
            data=only(CONFIG["data"], "max_length", "on_too_long"),
        ),
        code=code("tokenize_rows", "mlx"),
    script:
        "../scripts/tokenize_rows.py"
