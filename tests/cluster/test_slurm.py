"""The chain on a real Slurm: as a whole, cancelled, over its time limit, side by side, on a node that goes down."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml
from project_copy import ROOT, TINY, Project, tiny

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
WAIT = 240.0  # seconds for a job to be where a test wants it
# a cluster without accounting, and less patience than a real one needs
HERE = [
    *("--profile", "profiles/slurm", "--slurm-no-account", "--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "3", "--latency-wait", "5"),
    *("--default-resources", "mem_mb=1000", "runtime=30", "slurm_partition=main"),
]
PLUGIN = Path(os.environ.get("SNAKETUNE_CLUSTER", ROOT / ".cluster"))
# one project for all tests: what is compared is trained without a cluster once
SETTINGS = {
    "run": "tiny",
    "model": {"base": "tiny-base"},
    "data": {"sources": [{"path": "rows.jsonl"}], "max_length": 64},
    "pilot": {"rows": 20, "max_steps": 4, "on_no_go": "continue", "sample": 4},
    "train": yaml.safe_load(TINY)["train"] | {"max_steps": 3000, "eval_steps": 500, "early_stopping_patience": None},
    "experiments": {
        "short": {},
        "large": {"rank": 8},
        "long": {"max_steps": 12000, "eval_steps": 4000},
        "wild": {"learning_rate": 1e30, "max_nonfinite_steps": 2},
    },
}


def on_cluster(project, *arguments, retries=3, timeout=900.0):
    return project.snakemake(*HERE, "--retries", str(retries), *arguments, timeout=timeout, PYTHONPATH=str(PLUGIN))


def summary(experiment):
    return f"results/tiny/train/{experiment}/summary.json"


def adapter(project, experiment):
    return (project.folder / f"results/tiny/train/{experiment}/adapters.safetensors").read_bytes()


@pytest.fixture(scope="module")
def piloted(tmp_path_factory):
    """A tiny project that is ready to train."""
    project = tiny(tmp_path_factory.mktemp("cluster") / "project")
    project.write("tiny.yaml", yaml.safe_dump(SETTINGS, sort_keys=False))
    said = project.snakemake("results/tiny/pilot/go", "--cores", "2")
    assert said.returncode == 0, said.stdout
    return project


@pytest.fixture(scope="module")
def undisturbed(piloted, tmp_path_factory):
    """The same project, its trainings made in one go and without a cluster."""
    twin = piloted.twin(tmp_path_factory.mktemp("undisturbed") / "project")
    said = twin.snakemake(summary("short"), summary("long"), "--cores", "2")
    assert said.returncode == 0, said.stdout
    return twin


def while_running(slurm, project, act):
    """Run the short training on the cluster and do something once it has made some updates."""
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(on_cluster(project, summary("short"))))
    thread.start()
    until = time.monotonic() + WAIT
    log = project.folder / "results/tiny/logs/train_adapter-short.log"
    while not (slurm.jobs("train_adapter") and log.exists() and "update 500/" in log.read_text()):
        assert thread.is_alive(), outcome[0].stdout
        assert time.monotonic() < until
        time.sleep(0.2)
    act(slurm.jobs("train_adapter")[0])
    thread.join(WAIT * 2)
    assert outcome, "Snakemake has not ended"
    assert outcome[0].returncode == 0, outcome[0].stdout


def went_on(project, experiment):
    """Whether the last job of a training went on from a checkpoint."""
    timing = json.loads((project.folder / f"results/tiny/train/{experiment}/timing.json").read_text())
    return timing["resumed_from"] > 0


def test_a_cancelled_training_is_submitted_again_and_ends_in_the_same_bytes(slurm, piloted, undisturbed, tmp_path):
    project = piloted.twin(tmp_path / "project")
    while_running(slurm, project, lambda job: subprocess.run(["scancel", job], check=True))
    assert went_on(project, "short")
    assert adapter(project, "short") == adapter(undisturbed, "short")


def test_a_node_that_goes_down_and_comes_back_costs_a_part_of_a_training(slurm, piloted, undisturbed, tmp_path):
    project = piloted.twin(tmp_path / "project")

    def power_cut(_job):
        slurm.kill_node()
        time.sleep(5)
        slurm.start_node()
        slurm.control("state=resume")

    while_running(slurm, project, power_cut)
    assert went_on(project, "short")
    assert adapter(project, "short") == adapter(undisturbed, "short")


def test_a_training_over_its_time_limit_goes_on_in_another_job(slurm, piloted, undisturbed, tmp_path):
    project = piloted.twin(tmp_path / "project")
    limit = ["--set-resources", "train_adapter:runtime=1"]
    said = on_cluster(project, summary("long"), *limit, retries=12, timeout=1500)
    assert said.returncode == 0, said.stdout
    assert went_on(project, "long")
    assert adapter(project, "long") == adapter(undisturbed, "long")
    assert slurm.ended("TIMEOUT")


def test_experiments_run_side_by_side_and_one_that_fails_leaves_the_others(slurm, piloted, tmp_path):
    project = piloted.twin(tmp_path / "project")
    together, ended = [0], threading.Event()

    def watching():
        while not ended.wait(0.3):
            together.append(len(slurm.jobs("train_adapter")))

    watcher = threading.Thread(target=watching)
    watcher.start()
    said = on_cluster(project, *(summary(name) for name in ("wild", "short", "large")), retries=1)
    ended.set()
    watcher.join()
    assert said.returncode == 1
    assert max(together) >= min(2, os.cpu_count())
    assert adapter(project, "short")
    assert adapter(project, "large")
    assert not (project.folder / summary("wild")).exists()
    assert "experiment=wild" in said.stdout
    assert "not finite" in (project.folder / "results/tiny/logs/train_adapter-wild.log").read_text()


@pytest.mark.usefixtures("slurm")
def test_the_demo_runs_from_its_start_to_its_report(tmp_path):
    project = Project.copied(tmp_path / "demo")
    said = on_cluster(project, timeout=1800)
    assert said.returncode == 0, said.stdout
    assert (project.folder / "results/demo/report/index.html").is_file()
    assert not list((project.folder / ".snakemake/incomplete").glob("*"))
