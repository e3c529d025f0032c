"""Run lm-evaluation-harness on base and fused model (snaketune.evaluate.lm_eval)."""

import json

from snaketune.evaluate import lm_eval
from snaketune.files import read_json
from snaketune.model.manifest import read_manifest
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    models = {"base": read_manifest(snakemake.input.model).folder, "fused": read_json(snakemake.input.fused)["folder"]}
    others = json.loads(snakemake.params.config)["evaluate"]["lm_eval_tasks"]
    found = lm_eval.run(snakemake.input.task, models, others, snakemake.output.results)
    events.report_result(found.message)
