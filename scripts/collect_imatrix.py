"""Collect the importance matrix of the merged model on training rows (snaketune.package.imatrix)."""

import json

from snaketune import files
from snaketune.package import imatrix
from snaketune.package.calibration_rows import training_ids
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    config, inputs = json.loads(snakemake.params.config), snakemake.input
    rows = training_ids(inputs.model, files.read_jsonl(inputs.rows), config["model"]["chat_template"])
    read = imatrix.collect_imatrix(inputs.gguf, rows, snakemake.output.imatrix, threads=snakemake.threads)
    events.report_result(f"activations of {read} training rows")
