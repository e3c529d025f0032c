"""Quantize the merge for MLX to one of the types of package.mlx (snaketune.package.mlx_folder)."""

import json

from snaketune import files
from snaketune.package import calibration_rows, mlx_folder
from snaketune.runtime import events, progress, step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    config, inputs = json.loads(snakemake.params.config), snakemake.input
    calibrated = inputs.get("train") is not None
    rows = (
        calibration_rows.calibration_rows(
            inputs.model,
            files.read_jsonl(inputs.train),
            files.read_jsonl(inputs.valid),
            chat_template=config["model"]["chat_template"],
            seed=config["seed"],
        )
        if calibrated
        else None
    )
    kind = snakemake.wildcards.mlx
    made = mlx_folder.quantize_mlx(
        inputs.manifest, inputs.model, inputs.adapter, snakemake.output.manifest, name=kind, rows=rows
    )
    outcome = " (calibrated)" if made.calibration and made.calibration.kept else ""
    events.report_result(f"mlx-{kind} {progress.format_bytes(made.bytes)}{outcome}")
