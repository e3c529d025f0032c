"""Quantize the merge for MLX to one of the types of package.mlx (snaketune.package.mlx_folder)."""

import json

import msgspec
from snaketune import files
from snaketune.package import mlx_folder
from snaketune.package.calibration_rows import RowReader
from snaketune.runtime import events, progress, step
from snaketune.tokens.tokenize import FilterConfig

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    config, inputs = json.loads(snakemake.params.config), snakemake.input
    rows = None
    if inputs.get("train") is not None:
        filtering = msgspec.convert(config["data"], FilterConfig)
        reader = RowReader(inputs.model, config["model"]["chat_template"], filtering)
        splits = (files.read_jsonl(inputs.train), files.read_jsonl(inputs.valid))
        rows = reader.calibration_rows(*splits, seed=config["seed"])
    kind = snakemake.wildcards.mlx
    made = mlx_folder.quantize_mlx(
        inputs.manifest, inputs.model, inputs.adapter, snakemake.output.manifest, name=kind, rows=rows
    )
    outcome = " (calibrated)" if made.calibration and made.calibration.kept else ""
    events.report_result(f"mlx-{kind} {progress.format_bytes(made.bytes)}{outcome}")
