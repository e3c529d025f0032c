"""Pretrain the demo's tiny base model (snaketune.engines.mlx.pretraining)."""

from pathlib import Path

from snaketune.runtime import step

with step.running(snakemake.log[0]):
    from snaketune.engines.mlx.pretraining import build_demo

    build_demo(Path(snakemake.output[0]).parent, seed=1)
