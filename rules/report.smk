# Stage report: what was run and what came out, on one page.
#
# needs    the files of all stages
# leaves   config.json, run.json, report/index.html, report/report.json, report/human_eval.html
# steps    save_config, record_run, write_report


rule report:
    input:
        f"{RUN}/report/index.html",
        f"{RUN}/run.json",
        f"{RUN}/data/leaks.json",
        f"{RUN}/model/fidelity.passed",


rule save_config:
    output:
        config=ensure(f"{RUN}/config.json", non_empty=True),
    log:
        f"{RUN}/logs/save_config.log",
    params:
        config=settings(**CONFIG),
        code=code("save_config", "data"),
    conda:
        "../envs/data.yaml"
    script:
        "../scripts/save_config.py"
