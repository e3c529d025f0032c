"""The plan stands before anything large: what does not fit is refused in seconds, and no weights are fetched for it."""

import resource
from pathlib import Path

from project_copy import Project


def test_a_run_that_does_not_fit_is_refused_in_seconds_before_any_weights_are_fetched(
    finished: Project, tmp_path: Path
) -> None:
    project = finished.twin(tmp_path / "project")
    for manifest in (project.folder / "results/models").glob("*.json"):
        if not manifest.name.endswith(".config.json"):
            manifest.unlink()
    project.replace("tiny.yaml", "train:\n", "train:\n  memory_limit: 0.0001\n")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = project.snakemake()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 1
    assert "GB may be used (train.memory_limit)" in done.stdout
    assert "Smallest changes" in done.stdout
    assert "fetch_model" not in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


def test_another_run_fetches_no_base_again_although_its_plan_is_another(finished: Project, tmp_path: Path) -> None:
    project = finished.twin(tmp_path / "project")
    project.replace("tiny.yaml", "run: tiny", "run: other")
    planned = project.stale("train")
    assert "forecast_run" in planned
    assert not planned & {"fetch_config", "fetch_model"}
