"""Collect the importance matrix of the merged model on training rows, and its loss (snaketune.package.imatrix)."""

import json

import msgspec
from snaketune import files
from snaketune.package import imatrix
from snaketune.package.calibration_rows import RowReader
from snaketune.runtime import events, step
from snaketune.tokens.tokenize import FilterConfig

with step.running(snakemake.log[0]):
    config, inputs, outputs = json.loads(snakemake.params.config), snakemake.input, snakemake.output
    filtering = msgspec.convert(config["data"], FilterConfig)
    reader = RowReader(inputs.model, config["model"]["chat_template"], filtering)
    rows = reader.training_ids(files.read_jsonl(inputs.train))
    read = imatrix.collect_imatrix(inputs.gguf, rows, outputs.imatrix, threads=snakemake.threads)
    valid = reader.validation_requests(files.read_jsonl(inputs.valid))
    files.write_json(outputs.merged, imatrix.merged_loss(inputs.gguf, valid, threads=snakemake.threads))
    events.report_result(f"activations of {read} training rows")
