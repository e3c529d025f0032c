# Stage package: from the adapter to the files that people run, each proven to be the same model.
#
# needs    the chosen adapter and its base; the test rows
# leaves   model/fused/ and fused.json, model/<run>-<type>.gguf (f16 only if asked for), Modelfile, peft/ and
#          <run>-lora.gguf, fidelity.json, and a stamp after the gate
# steps    fuse_adapter, convert_gguf, quantize_gguf, export_adapter, write_modelfile, check_fidelity, pass_fidelity
ONE_MODEL = len({settings_text(**one["model"]) for one in EXPERIMENTS.values()}) == 1
ONLY_BASE = next(iter(BASES)) if ONE_MODEL else None
BASE = f"{MODELS}/{ONLY_BASE}.json" if ONLY_BASE else rules.select_experiment.output.model
TYPES = CONFIG["package"]["gguf"]
F16 = ancient(gguf("f16"))  # one to pass through: where it is gone it is made again, and nothing runs because it was
CONVERTED = code("convert_gguf", "gguf")  # so what is made from it answers for the code that it was made by
ALONE = CONFIG["package"]["adapter"] and {one["train"]["method"] for one in EXPERIMENTS.values()} == {"lora"}


rule package:
    input:
        f"{RUN}/model/fused.json",
        f"{RUN}/model/Modelfile",
        f"{RUN}/model/fidelity.json",
        f"{RUN}/model/fidelity.passed",
        [gguf(kind) for kind in TYPES],
        f"{RUN}/model/{CONFIG['run']}-lora.gguf" if ALONE else [],


rule fuse_adapter:
    input:
        model=BASE,
        adapter=rules.select_experiment.output.adapter,
        adapter_config=rules.select_experiment.output.adapter_config,
        template=lambda wildcards: sorted(
            {file for one in EXPERIMENTS.values() for file in template_file(one["model"])}
        ),
    output:
        fused=directory(f"{RUN}/model/fused"),
        manifest=ensure(f"{RUN}/model/fused.json", non_empty=True),
    log:
        f"{RUN}/logs/fuse_adapter.log",
    benchmark:
        f"{RUN}/benchmarks/fuse_adapter.tsv"
    conda:
        "../envs/mlx.yaml"
    resources:
        gpu=GPU,
        mem_mb=model_memory,
        runtime=packaging_time,
    params:
        config=settings(model=only(FIRST["model"], "chat_template", "dtype")),
        code=code("fuse_adapter", "mlx"),
    script:
        "../scripts/fuse_adapter.py"


rule convert_gguf:
    input:
        manifest=rules.fuse_adapter.output.manifest,
        fused=rules.fuse_adapter.output.fused,
    output:
        gguf=ensure(gguf("f16") if "f16" in TYPES else temp(gguf("f16")), non_empty=True),
    log:
        f"{RUN}/logs/convert_gguf.log",
    benchmark:
        f"{RUN}/benchmarks/convert_gguf.tsv"
    conda:
        "../envs/gguf.yaml"
    threads: CONFIG["threads"]
    resources:
        mem_mb=model_memory,
        runtime=packaging_time,
    params:
        code=code("convert_gguf", "gguf"),
    script:
        "../scripts/convert_gguf.py"


rule quantize_gguf:
    input:
        manifest=rules.fuse_adapter.output.manifest,
        gguf=F16,
    output:
        gguf=ensure(gguf("{type}"), non_empty=True),
    log:
        f"{RUN}/logs/quantize_gguf-{{type}}.log",
    benchmark:
        f"{RUN}/benchmarks/quantize_gguf-{{type}}.tsv"
    wildcard_constraints:
        type=any_of(set(TYPES) - {"f16"}),
    conda:
        "../envs/gguf.yaml"
    threads: CONFIG["threads"]
    resources:
        mem_mb=model_memory,
        runtime=packaging_time,
    params:
        code=code("quantize_gguf", "gguf"),
        converted=CONVERTED,
    script:
        "../scripts/quantize_gguf.py"


rule export_adapter:
    input:
        model=BASE,
        adapter=rules.select_experiment.output.adapter,
        adapter_config=rules.select_experiment.output.adapter_config,
    output:
        peft=directory(f"{RUN}/model/peft"),
        lora=ensure(f"{RUN}/model/{CONFIG['run']}-lora.gguf", non_empty=True),
    log:
        f"{RUN}/logs/export_adapter.log",
    benchmark:
        f"{RUN}/benchmarks/export_adapter.tsv"
    conda:
        "../envs/gguf.yaml"
    threads: CONFIG["threads"]
    resources:
        mem_mb=model_memory,
        runtime=packaging_time,
    params:
        code=code("export_adapter", "gguf"),
    script:
        "../scripts/export_adapter.py"


rule write_modelfile:
    input:
        manifest=rules.fuse_adapter.output.manifest,
        gguf=gguf(TYPES[0]),
        rows=rules.split_rows.output.train,
    output:
        modelfile=ensure(f"{RUN}/model/Modelfile", non_empty=True),
    log:
        f"{RUN}/logs/write_modelfile.log",
    conda:
        "../envs/gguf.yaml"
    params:
        config=settings(
            run=CONFIG["run"],
            package=only(CONFIG["package"], "name", "ollama"),
            data=only(CONFIG["data"], "system"),
        ),
        code=code("write_modelfile", "gguf"),
    script:
        "../scripts/write_modelfile.py"


rule check_fidelity:
    input:
        model=BASE,
        adapter=rules.select_experiment.output.adapter,
        adapter_config=rules.select_experiment.output.adapter_config,
        manifest=rules.fuse_adapter.output.manifest,
        ggufs=[F16, *(gguf(kind) for kind in TYPES if kind != "f16")],
        rows=rules.split_rows.output.test,
    output:
        fidelity=report(
            ensure(f"{RUN}/model/fidelity.json", non_empty=True),
            category="Fidelity",
            caption="../report/captions/fidelity.rst",
        ),
    log:
        f"{RUN}/logs/check_fidelity.log",
    benchmark:
        f"{RUN}/benchmarks/check_fidelity.tsv"
    conda:
        "../envs/gguf.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
        mem_mb=model_memory,
        runtime=evaluation_time,
    params:
        config=settings(
            package=only(CONFIG["package"], "fidelity", "min_gain_retained"),
            model=only(FIRST["model"], "chat_template"),
            data=only(CONFIG["data"], "max_length"),
            seed=CONFIG["seed"],
        ),
        code=code("check_fidelity", "gguf"),
        converted=CONVERTED,
    script:
        "../scripts/check_fidelity.py"


rule pass_fidelity:
    input:
        fidelity=rules.check_fidelity.output.fidelity,
    output:
        passed=f"{RUN}/model/fidelity.passed",
    log:
        f"{RUN}/logs/pass_fidelity.log",
    retries: 0
    conda:
        "../envs/data.yaml"
    params:
        code=code("pass_fidelity", "data"),
    script:
        "../scripts/pass_fidelity.py"
