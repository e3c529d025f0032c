"""Build the demo's tiny base model: snaketune.mlx_engine.pretraining."""

from pathlib import Path

from snaketune import step

with step.running(snakemake.log[0]):
    from snaketune.mlx_engine.pretraining import build_demo

    build_demo(Path(snakemake.output[0]).parent, seed=1)
