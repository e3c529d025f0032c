"""Jobs that compute on this machine's one GPU take it one after another."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from project_copy import Project, tiny

ON_A_CARD = """
import sys
from snaketune.runtime import engine
engine.has_nvidia_card, engine.torch_build = lambda: True, lambda: sys.argv[1]
import snakemake.cli
snakemake.cli.main(["-n", "-p", "train", "--configfile", "tiny.yaml", "--config", "engine=torch"])
"""
JOB = re.compile(r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return tiny(tmp_path_factory.mktemp("gpu") / "project")


@pytest.mark.parametrize(("build", "gpus"), [("2.13.0", 1), ("2.13.0+cpu", 0)])
def test_training_takes_the_gpu_where_the_engine_computes_on_an_nvidia_card(
    build: str, gpus: int, project: Project
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_A_CARD, build],
        cwd=project.folder,
        env=os.environ | {"PYTHONPATH": str(project.folder / "scripts")},
        capture_output=True,
        text=True,
    )
    taken = {rule: f"gpu={gpus}" in resources.split(", ") for rule, resources in JOB.findall(done.stdout + done.stderr)}
    assert taken.get("train_adapter"), done.stdout + done.stderr
    assert taken["train_pilot"]
    assert "gpu=1" not in dict(JOB.findall(done.stdout + done.stderr))["split_rows"]
