"""Export the test rows as a task of lm-evaluation-harness (snaketune.evaluate.lm_eval)."""

import json

from snaketune.evaluate import lm_eval
from snaketune.model.manifest import read_manifest
from snaketune.runtime import events, step
from snaketune.tokens.chat_template import renderer_of

with step.running(snakemake.log[0]):
    config, base = json.loads(snakemake.params.config), read_manifest(snakemake.input.model)
    count = lm_eval.export_task(
        snakemake.input.rows,
        renderer_of(base, config["model"]["chat_template"]),
        snakemake.output.task,
        max_new_tokens=config["evaluate"]["max_new_tokens"],
    )
    events.report_result(f"{count} rows")
