# Stage evaluate: every product answers the same test rows, and each is compared with the base.
#
# needs    the test rows, the base, the chosen adapter, the fused model, the GGUF files
# leaves   evaluation/<artefact>/{predictions.jsonl,scores.json}, general.jsonl with a general set, prompts.jsonl with
#          prompts of one's own; evaluation/comparison.json; evaluation/passed, where missed targets stop the run
# steps    generate_answers, score_answers, compare_scores, check_targets
ARTEFACTS = or_exit(evaluate_settings.artefacts, CONFIG)
EVALUATED = dict(CONFIG, model=FIRST["model"])
GENERAL = CONFIG["evaluate"]["forgetting"]["rows"]


rule evaluate:
    input:
        f"{RUN}/evaluation/comparison.json",
        expand(f"{RUN}/evaluation/{{artefact}}/{{file}}", artefact=ARTEFACTS, file=["predictions.jsonl", "scores.json"]),
        f"{RUN}/evaluation/passed" if CONFIG["evaluate"]["on_missed_threshold"] == "stop" else [],


rule generate_answers:
    input:
        unpack(artefact_inputs),
    output:
        **answer_files(f"{RUN}/evaluation/{{artefact}}"),
    log:
        f"{RUN}/logs/generate_answers-{{artefact}}.log",
    benchmark:
        f"{RUN}/benchmarks/generate_answers-{{artefact}}.tsv"
    conda:
        "../envs/gguf.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPU,
        mem_mb=model_memory,
        runtime=evaluation_time,
    params:
        config=lambda wildcards: settings_text(**evaluate_settings.answering(EVALUATED, wildcards.artefact)),
        code=code("generate_answers", "gguf"),
    script:
        "../scripts/generate_answers.py"


rule score_answers:
    input:
        similarity=SIMILARITY,
        predictions=rules.generate_answers.output.predictions,
    output:
        scores=ensure(f"{RUN}/evaluation/{{artefact}}/scores.json", non_empty=True),
    log:
        f"{RUN}/logs/score_answers-{{artefact}}.log",
    benchmark:
        f"{RUN}/benchmarks/score_answers-{{artefact}}.tsv"
    conda:
        "../envs/gguf.yaml"
    params:
        config=settings(**evaluate_settings.scoring(CONFIG)),
        code=code("score_answers", "gguf"),
    script:
        "../scripts/score_answers.py"


rule compare_scores:
    input:
        predictions=expand(rules.generate_answers.output.predictions, artefact=ARTEFACTS),
        scores=expand(rules.score_answers.output.scores, artefact=ARTEFACTS),
        general=(expand(f"{RUN}/evaluation/{{artefact}}/general.jsonl", artefact=ARTEFACTS) if GENERAL else []),
    output:
        comparison=report(
            ensure(f"{RUN}/evaluation/comparison.json", non_empty=True),
            category="Scores",
            caption="../report/captions/comparison.rst",
        ),
    log:
        f"{RUN}/logs/compare_scores.log",
    benchmark:
        f"{RUN}/benchmarks/compare_scores.tsv"
    conda:
        "../envs/report.yaml"
    params:
        config=settings(**evaluate_settings.comparing(CONFIG)),
        code=code("compare_scores", "report"),
    script:
        "../scripts/compare_scores.py"


rule check_targets:
    input:
        comparison=rules.compare_scores.output.comparison,
    output:
        passed=f"{RUN}/evaluation/passed",
    log:
        f"{RUN}/logs/check_targets.log",
    benchmark:
        f"{RUN}/benchmarks/check_targets.tsv"
    retries: 0
    conda:
        "../envs/report.yaml"
    params:
        code=code("check_targets", "report"),
    script:
        "../scripts/check_targets.py"
