# Stage data: from the person's files to three splits.
#
# needs    the sources of the configuration
# leaves   data/records.jsonl, rejected.jsonl, report.json; train.jsonl, valid.jsonl, test.jsonl, split.json; leaks.json,
#          and a stamp after the gate
# steps    validate_rows, split_rows, check_leaks, pass_leaks


rule data:
    input:
        f"{RUN}/data/report.json",
        f"{RUN}/data/leaks.json",
        f"{RUN}/data/leaks.passed",
        f"{RUN}/data/records.jsonl",
        f"{RUN}/data/rejected.jsonl",
        f"{RUN}/data/split.json",
        expand(f"{RUN}/data/{{split}}.jsonl", split=SPLITS),


rule validate_rows:
    input:
        sources=SOURCES,
    output:
        records=ensure(f"{RUN}/data/records.jsonl", non_empty=True),
        rejected=f"{RUN}/data/rejected.jsonl",
        report=report(
            ensure(f"{RUN}/data/report.json", non_empty=True),
            category="Data",
            caption="../report/captions/data.rst",
        ),
    log:
        f"{RUN}/logs/validate_rows.log",
    benchmark:
        f"{RUN}/benchmarks/validate_rows.tsv"
    conda:
        "../envs/data.yaml"
    params:
        config=settings(
            data=without(CONFIG["data"], "split", "max_length", "on_too_long", "on_leakage"),
            seed=CONFIG["seed"],
        ),
        code=code("validate_rows", "data"),
    script:
        "../scripts/validate_rows.py"


rule split_rows:
    input:
        records=rules.validate_rows.output.records,
    output:
        train=f"{RUN}/data/train.jsonl",
        valid=f"{RUN}/data/valid.jsonl",
        test=f"{RUN}/data/test.jsonl",
        split=ensure(f"{RUN}/data/split.json", non_empty=True),
    log:
        f"{RUN}/logs/split_rows.log",
    benchmark:
        f"{RUN}/benchmarks/split_rows.tsv"
    conda:
        "../envs/data.yaml"
    params:
        config=settings(
            split=CONFIG["data"]["split"],
            seed=CONFIG["seed"],
        ),
        code=code("split_rows", "data"),
    script:
        "../scripts/split_rows.py"


rule check_leaks:
    input:
        train=rules.split_rows.output.train,
        valid=rules.split_rows.output.valid,
        test=rules.split_rows.output.test,
    output:
        leaks=ensure(f"{RUN}/data/leaks.json", non_empty=True),
    log:
        f"{RUN}/logs/check_leaks.log",
    benchmark:
        f"{RUN}/benchmarks/check_leaks.tsv"
    conda:
        "../envs/data.yaml"
    params:
        config=settings(**only(CONFIG["data"], "on_leakage", "near_duplicates", "shingles")),
        code=code("check_leaks", "data"),
    script:
        "../scripts/check_leaks.py"


rule pass_leaks:
    input:
        report=rules.validate_rows.output.report,
        split=rules.split_rows.output.split,
        leaks=rules.check_leaks.output.leaks,
    output:
        passed=f"{RUN}/data/leaks.passed",
    log:
        f"{RUN}/logs/pass_leaks.log",
    retries: 0
    conda:
        "../envs/data.yaml"
    params:
        code=code("pass_leaks", "data"),
    script:
        "../scripts/pass_leaks.py"
