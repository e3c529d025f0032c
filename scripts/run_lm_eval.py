"""Run lm-evaluation-harness on base and fused model (snaketune.evaluate.lm_eval)."""

import json

from snaketune.contracts.lm_eval import Judged
from snaketune.evaluate import lm_eval
from snaketune.files import read_json, sha256
from snaketune.model.manifest import read_manifest
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    models = {"base": read_manifest(snakemake.input.model).folder, "fused": read_json(snakemake.input.fused)["folder"]}
    others = json.loads(snakemake.params.config)["evaluate"]["lm_eval_tasks"]
    judged = Judged(model=sha256(snakemake.input.fused), rows=sha256(snakemake.input.rows))
    found = lm_eval.run(snakemake.input.task, models, others, snakemake.output.results, judged)
    events.report_result(found.message)
