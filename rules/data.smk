# Stage data: from the user's files to three splits.
#
# needs    the sources of the configuration
# leaves   data/records.jsonl, rejected.jsonl, report.json; train.jsonl, valid.jsonl, test.jsonl, split.json; leaks.json,
#          and leaks.passed after the gate
# steps    validate_rows, split_rows, check_leaks, pass_leaks


rule data:
    """Stage: check the rows, drop duplicates, split."""
    input:
        f"{RUN}/data/report.json",
        f"{RUN}/data/leaks.json",
        f"{RUN}/data/leaks.passed",
        f"{RUN}/data/records.jsonl",
        f"{RUN}/data/rejected.jsonl",
        f"{RUN}/data/split.json",
        expand(f"{RUN}/data/{{split}}.jsonl", split=SPLITS),


rule validate_rows:
    """Read every source; keep each row, or reject it with a reason, or drop it as a duplicate."""
    input:
        sources=this_run.sources,
    output:
        records=ensure(f"{RUN}/data/records.jsonl", non_empty=True),
        rejected=f"{RUN}/data/rejected.jsonl",
        report=report(
            ensure(f"{RUN}/data/report.json", non_empty=True),
            category="Data",
            caption="../report/captions/data.rst",
        ),
    log:
        logs("validate_rows"),
    benchmark:
        benchmarks("validate_rows")
    conda:
        "../envs/data.yaml"
    params:
        config=tracked(
            data=omit(CONFIG["data"], "split", "max_length", "max_lost", "on_too_long", "on_leakage"),
            seed=CONFIG["seed"],
        ),
        code=code("validate_rows", "data"),
    script:
        scripts("validate_rows")


rule split_rows:
    """Assign whole clusters of related rows to train, valid and test."""
    input:
        records=rules.validate_rows.output.records,
    output:
        train=f"{RUN}/data/train.jsonl",
        valid=f"{RUN}/data/valid.jsonl",
        test=f"{RUN}/data/test.jsonl",
        split=ensure(f"{RUN}/data/split.json", non_empty=True),
    log:
        logs("split_rows"),
    benchmark:
        benchmarks("split_rows")
    conda:
        "../envs/data.yaml"
    params:
        config=tracked(
            split=omit(CONFIG["data"]["split"], "sealed"),
            seed=CONFIG["seed"],
        ),
        code=code("split_rows", "data"),
    script:
        scripts("split_rows")


rule check_leaks:
    """List the rows that stand, or nearly stand, in more than one split."""
    input:
        train=rules.split_rows.output.train,
        valid=rules.split_rows.output.valid,
        test=rules.split_rows.output.test,
    output:
        leaks=ensure(f"{RUN}/data/leaks.json", non_empty=True),
    log:
        logs("check_leaks"),
    benchmark:
        benchmarks("check_leaks")
    conda:
        "../envs/data.yaml"
    params:
        config=tracked(**pick(CONFIG["data"], "on_leakage", "near_duplicates", "shingles")),
        code=code("check_leaks", "data"),
    script:
        scripts("check_leaks")


rule pass_leaks:
    """Gate: print the summary of the data; stop the run if rows leak between splits."""
    input:
        report=rules.validate_rows.output.report,
        split=rules.split_rows.output.split,
        leaks=rules.check_leaks.output.leaks,
    output:
        passed=f"{RUN}/data/leaks.passed",
    log:
        logs("pass_leaks"),
    retries: 0
    conda:
        "../envs/data.yaml"
    params:
        code=code("pass_leaks", "data"),
    script:
        scripts("pass_leaks")
