# Stage evaluate: every product answers the same test rows, and each is compared with the base.
#
# needs    the test rows, the base, the chosen adapter, the fused model, the GGUF files
# leaves   evaluation/<artefact>/{predictions.jsonl,scores.json}; evaluation/comparison.json
# steps    generate_answers, score_answers, compare_scores
ARTEFACTS = [
    name if name != "gguf" else f"gguf-{kind}" for name in CONFIG["evaluate"]["artefacts"] for kind in TYPES[:1]
]


def artefact_inputs(wildcards):
    """What an artefact is made of."""
    made = {"rows": rules.split_rows.output.test, "model": BASE}
    if wildcards.artefact.startswith("gguf-"):
        made["gguf"] = gguf(wildcards.artefact.removeprefix("gguf-"))
    elif wildcards.artefact == "fused":
        made["fused"] = rules.fuse_adapter.output.manifest
    elif wildcards.artefact == "adapter":
        made["adapter"] = rules.select_experiment.output.adapter
        made["adapter_config"] = rules.select_experiment.output.adapter_config
    return made


rule evaluate:
    input:
        f"{RUN}/evaluation/comparison.json",


rule generate_answers:
    input:
        unpack(artefact_inputs),
    output:
        predictions=ensure(f"{RUN}/evaluation/{{artefact}}/predictions.jsonl", non_empty=True),
    log:
        f"{RUN}/logs/generate_answers-{{artefact}}.log",
    benchmark:
        f"{RUN}/benchmarks/generate_answers-{{artefact}}.tsv"
    params:
        config=settings(
            evaluate=CONFIG["evaluate"],
            model=only(FIRST["model"], "template", "dtype"),
            data=only(CONFIG["data"], "max_length"),
            seed=CONFIG["seed"],
        ),
        code=code("generate_answers", "gguf"),
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
    conda:
        "../envs/gguf.yaml"
    script:
        "../scripts/generate_answers.py"


rule score_answers:
    input:
        predictions=rules.generate_answers.output.predictions,
    output:
        scores=ensure(f"{RUN}/evaluation/{{artefact}}/scores.json", non_empty=True),
    log:
        f"{RUN}/logs/score_answers-{{artefact}}.log",
    benchmark:
        f"{RUN}/benchmarks/score_answers-{{artefact}}.tsv"
    params:
        config=settings(evaluate=CONFIG["evaluate"], seed=CONFIG["seed"]),
        code=code("score_answers", "report"),
    conda:
        "../envs/report.yaml"
    script:
        "../scripts/score_answers.py"


rule compare_scores:
    input:
        predictions=expand(rules.generate_answers.output.predictions, artefact=ARTEFACTS),
        scores=expand(rules.score_answers.output.scores, artefact=ARTEFACTS),
    output:
        comparison=ensure(f"{RUN}/evaluation/comparison.json", non_empty=True),
    log:
        f"{RUN}/logs/compare_scores.log",
    benchmark:
        f"{RUN}/benchmarks/compare_scores.tsv"
    params:
        config=settings(evaluate=CONFIG["evaluate"], seed=CONFIG["seed"]),
        code=code("compare_scores", "report"),
    conda:
        "../envs/report.yaml"
    script:
        "../scripts/compare_scores.py"
