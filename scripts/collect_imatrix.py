"""Collect the importance matrix of the merged model on training rows (snaketune.package.imatrix)."""

import json

import msgspec
from snaketune import files
from snaketune.config.sections import FilterConfig
from snaketune.package import imatrix
from snaketune.package.calibration_rows import RowReader
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    config, inputs = json.loads(snakemake.params.config), snakemake.input
    filtering = msgspec.convert(config["data"], FilterConfig)
    reader = RowReader(inputs.model, config["model"]["chat_template"], filtering)
    rows = reader.training_ids(files.read_jsonl(inputs.rows))
    read = imatrix.collect_imatrix(inputs.gguf, rows, snakemake.output.imatrix, threads=snakemake.threads)
    events.report_result(f"activations of {read} training rows")
