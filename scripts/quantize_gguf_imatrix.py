"""Quantize the 16-bit GGUF file with an importance matrix, if that is better (snaketune.package.imatrix)."""

import json

import msgspec
from snaketune import files
from snaketune.contracts.package import MergedLoss
from snaketune.package import imatrix
from snaketune.package.calibration_rows import RowReader
from snaketune.runtime import events, progress, step
from snaketune.tokens.tokenize import FilterConfig

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    config, inputs, outputs = json.loads(snakemake.params.config), snakemake.input, snakemake.output
    filtering = msgspec.convert(config["data"], FilterConfig)
    reader = RowReader(inputs.model, config["model"]["chat_template"], filtering)
    valid = reader.validation_requests(files.read_jsonl(inputs.valid))
    merged = files.read_json(inputs.merged, MergedLoss)
    outcome = imatrix.quantize_with_imatrix(
        inputs.gguf,
        inputs.imatrix,
        outputs.gguf,
        snakemake.wildcards.type,
        judge=imatrix.Judge(valid, merged.loss),
        threads=snakemake.threads,
    )
    files.write_json(outputs.record, outcome)
    rounded = "with" if outcome.kept else "without"
    events.report_result(
        f"gguf-{snakemake.wildcards.type} {progress.format_bytes(progress.size_of(outputs.gguf))} "
        f"({rounded} an importance matrix)"
    )
