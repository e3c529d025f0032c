# Stage package: from the adapter to the files that people run, each proven to be the same model.
#
# needs    the chosen adapter and its base; the test rows
# leaves   model/fused/ and fused.json, model/<run>-<type>.gguf (f16 only if asked for), Modelfile, peft/ and
#          <run>-lora.gguf, <run>-mlx-<type>/ and its manifest, fidelity.json, and fidelity.passed after the gate
#          and, where types are rounded with one, imatrix.gguf, merged_loss.json and <run>-<type>.imatrix.json
# steps    fuse_adapter, convert_gguf, quantize_gguf, collect_imatrix, quantize_gguf_imatrix, quantize_mlx,
#          export_adapter, write_modelfile, check_fidelity, pass_fidelity
# reads    CHOSEN_ADAPTER and CHOSEN_BASE (train.smk), PILOT (pilot.smk), rules.split_rows (data.smk)
GGUF_TYPES = this_run.gguf_types
F16_GGUF = ancient(this_run.gguf("f16"))  # an intermediate: made again where it is needed, which makes nothing stale
CONVERTER_CODE = code("convert_gguf", "gguf")  # so what is made from the intermediate must track its code instead


rule package:
    """Stage: fuse, convert to GGUF, quantize (for MLX too), prove that it is the same model."""
    input:
        f"{RUN}/model/fused",
        f"{RUN}/model/fused.json",
        f"{RUN}/model/Modelfile",
        f"{RUN}/model/fidelity.json",
        f"{RUN}/model/fidelity.passed",
        [this_run.gguf(kind) for kind in GGUF_TYPES],
        [this_run.imatrix_record(kind) for kind in this_run.imatrix_types],
        this_run.mlx_manifests,
        this_run.mlx_folders,
        [f"{RUN}/model/peft", f"{RUN}/model/{this_run.name}-lora.gguf"] if this_run.exports_adapter else [],


rule fuse_adapter:
    """Merge the adapter into its base, in 16 bits."""
    input:
        model=CHOSEN_BASE,
        adapter=CHOSEN_ADAPTER,
        adapter_config=CHOSEN_ADAPTER_CONFIG,
        template=this_run.template_files,
    output:
        fused=directory(f"{RUN}/model/fused"),
        manifest=ensure(f"{RUN}/model/fused.json", non_empty=True),
    log:
        logs("fuse_adapter"),
    benchmark:
        benchmarks("fuse_adapter")
    conda:
        f"../envs/{ENGINE}.yaml"
    resources:
        gpu=gpu_share,
        mem_mb=model_memory,
        runtime=packaging_time,
    params:
        config=tracked(model=pick(PILOT.model, "chat_template", "dtype")),
        code=code("fuse_adapter", ENGINE),
    script:
        scripts("fuse_adapter")


rule convert_gguf:
    """Convert the merged model to a 16-bit GGUF file, from base and adapter without rounding in between."""
    input:
        model=CHOSEN_BASE,
        adapter=CHOSEN_ADAPTER,
        adapter_config=CHOSEN_ADAPTER_CONFIG,
        manifest=rules.fuse_adapter.output.manifest,
        fused=permission(rules.fuse_adapter.output.fused),  # the manifest says what is in it; of a folder only the time is seen
    output:
        gguf=ensure(this_run.gguf("f16") if "f16" in GGUF_TYPES else temp(this_run.gguf("f16")), non_empty=True),
    log:
        logs("convert_gguf"),
    benchmark:
        benchmarks("convert_gguf")
    conda:
        "../envs/gguf.yaml"
    threads: THREADS
    resources:
        mem_mb=model_memory,
        runtime=packaging_time,
    params:
        code=code("convert_gguf", "gguf"),
    script:
        scripts("convert_gguf")


rule quantize_gguf:
    """Quantize the 16-bit GGUF to one of the types of package.gguf."""
    input:
        manifest=rules.fuse_adapter.output.manifest,
        gguf=F16_GGUF,
    output:
        gguf=ensure(this_run.gguf("{type}"), non_empty=True),
    log:
        logs("quantize_gguf-{type}"),
    benchmark:
        benchmarks("quantize_gguf-{type}")
    wildcard_constraints:
        type=one_of(set(GGUF_TYPES) - {"f16", *this_run.imatrix_types}),
    conda:
        "../envs/gguf.yaml"
    threads: THREADS
    resources:
        mem_mb=model_memory,
        runtime=packaging_time,
    params:
        code=code("quantize_gguf", "gguf"),
        converted=CONVERTER_CODE,
    script:
        scripts("quantize_gguf")


rule collect_imatrix:
    """Collect an importance matrix from training rows, and the 16-bit loss that its types are compared with."""
    input:
        model=CHOSEN_BASE,
        manifest=rules.fuse_adapter.output.manifest,
        gguf=F16_GGUF,
        train=rules.split_rows.output.train,
        valid=rules.split_rows.output.valid,
    output:
        imatrix=ensure(f"{RUN}/model/imatrix.gguf", non_empty=True),
        merged=ensure(f"{RUN}/model/merged_loss.json", non_empty=True),
    log:
        logs("collect_imatrix"),
    benchmark:
        benchmarks("collect_imatrix")
    conda:
        "../envs/gguf.yaml"
    threads: THREADS
    resources:
        mem_mb=model_memory,
        runtime=evaluation_time,
    params:
        config=tracked(
            model=pick(PILOT.model, "chat_template"),
            data=FILTERING,
        ),
        code=code("collect_imatrix", "gguf"),
        converted=CONVERTER_CODE,
    script:
        scripts("collect_imatrix")


rule quantize_gguf_imatrix:
    """Quantize the 16-bit GGUF to a type that is rounded with the importance matrix, if that is better."""
    input:
        model=CHOSEN_BASE,
        manifest=rules.fuse_adapter.output.manifest,
        gguf=F16_GGUF,
        imatrix=rules.collect_imatrix.output.imatrix,
        merged=rules.collect_imatrix.output.merged,
        valid=rules.split_rows.output.valid,
    output:
        gguf=ensure(this_run.gguf("{type}"), non_empty=True),
        record=ensure(this_run.imatrix_record("{type}"), non_empty=True),
    log:
        logs("quantize_gguf_imatrix-{type}"),
    benchmark:
        benchmarks("quantize_gguf_imatrix-{type}")
    wildcard_constraints:
        type=one_of(this_run.imatrix_types),
    conda:
        "../envs/gguf.yaml"
    threads: THREADS
    resources:
        mem_mb=model_memory,
        runtime=evaluation_time,
    params:
        config=tracked(
            model=pick(PILOT.model, "chat_template"),
            data=FILTERING,
        ),
        code=code("quantize_gguf_imatrix", "gguf"),
        converted=CONVERTER_CODE,
    script:
        scripts("quantize_gguf_imatrix")


rule quantize_mlx:
    """Quantize the merged model for MLX to one of the types of package.mlx."""
    input:
        unpack(lambda wildcards: pick_outputs(rules.split_rows, this_run.calibration_splits(wildcards.mlx))),
        model=CHOSEN_BASE,
        adapter=CHOSEN_ADAPTER,
        adapter_config=CHOSEN_ADAPTER_CONFIG,
        manifest=rules.fuse_adapter.output.manifest,
        fused=permission(rules.fuse_adapter.output.fused),
    output:
        folder=directory(this_run.mlx_folder("{mlx}")),
        manifest=ensure(this_run.mlx_folder("{mlx}") + ".json", non_empty=True),
    log:
        logs("quantize_mlx-{mlx}"),
    benchmark:
        benchmarks("quantize_mlx-{mlx}")
    wildcard_constraints:
        mlx=one_of(this_run.config.package.mlx),
    conda:
        "../envs/mlx.yaml"
    resources:
        gpu=gpu_share,
        mem_mb=model_memory,
        runtime=packaging_time,
    params:
        config=tracked(
            model=pick(PILOT.model, "chat_template"),
            data=FILTERING,
            seed=CONFIG["seed"],
        ),
        code=code("quantize_mlx", "mlx"),
    script:
        scripts("quantize_mlx")


rule export_adapter:
    """Write the adapter alone, for transformers (PEFT) and for llama.cpp."""
    input:
        model=CHOSEN_BASE,
        adapter=CHOSEN_ADAPTER,
        adapter_config=CHOSEN_ADAPTER_CONFIG,
    output:
        peft=directory(f"{RUN}/model/peft"),
        lora=ensure(f"{RUN}/model/{this_run.name}-lora.gguf", non_empty=True),
    log:
        logs("export_adapter"),
    benchmark:
        benchmarks("export_adapter")
    conda:
        "../envs/gguf.yaml"
    threads: THREADS
    resources:
        mem_mb=model_memory,
        runtime=packaging_time,
    params:
        code=code("export_adapter", "gguf"),
    script:
        scripts("export_adapter")


rule write_modelfile:
    """Write Ollama's Modelfile for the first GGUF type."""
    input:
        manifest=rules.fuse_adapter.output.manifest,
        gguf=this_run.gguf(GGUF_TYPES[0]),
        rows=rules.split_rows.output.train,
    output:
        modelfile=ensure(f"{RUN}/model/Modelfile", non_empty=True),
    log:
        logs("write_modelfile"),
    conda:
        "../envs/gguf.yaml"
    params:
        config=tracked(
            run=CONFIG["run"],
            package=pick(CONFIG["package"], "name", "ollama"),
            data=pick(CONFIG["data"], "system"),
        ),
        code=code("write_modelfile", "gguf"),
    script:
        scripts("write_modelfile")


rule check_fidelity:
    """Measure how faithful the fused model and each product are to base and adapter."""
    input:
        model=CHOSEN_BASE,
        adapter=CHOSEN_ADAPTER,
        adapter_config=CHOSEN_ADAPTER_CONFIG,
        manifest=rules.fuse_adapter.output.manifest,
        ggufs=[F16_GGUF, *(this_run.gguf(kind) for kind in GGUF_TYPES if kind != "f16")],
        mlx=this_run.mlx_manifests,
        # rows that nothing was trained on; a sealed test split stays closed here
        rows=rules.split_rows.output.valid if CONFIG["data"]["split"]["sealed"] else rules.split_rows.output.test,
    output:
        fidelity=report(
            ensure(f"{RUN}/model/fidelity.json", non_empty=True),
            category="Fidelity",
            caption="../report/captions/fidelity.rst",
        ),
    log:
        logs("check_fidelity"),
    benchmark:
        benchmarks("check_fidelity")
    conda:
        "../envs/gguf.yaml"
    threads: THREADS
    resources:
        gpu=gpu_share,
        mem_mb=model_memory,
        runtime=evaluation_time,
    params:
        config=tracked(
            package=pick(CONFIG["package"], "fidelity", "min_gain_retained"),
            model=pick(PILOT.model, "chat_template"),
            data=pick(CONFIG["data"], "max_length"),
            seed=CONFIG["seed"],
        ),
        code=code("check_fidelity", "gguf"),
        converted=CONVERTER_CODE,
    script:
        scripts("check_fidelity")


rule pass_fidelity:
    """Gate: stop the run if a file is not the model that was trained."""
    input:
        fidelity=rules.check_fidelity.output.fidelity,
    output:
        passed=f"{RUN}/model/fidelity.passed",
    log:
        logs("pass_fidelity"),
    retries: 0
    conda:
        "../envs/data.yaml"
    params:
        code=code("pass_fidelity", "data"),
    script:
        scripts("pass_fidelity")
