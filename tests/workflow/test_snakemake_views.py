"""Snakemake's own ways of looking at a run (--summary, --list-changes, --dag) say what is so."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dry_runs import DryRuns
from project_copy import Project
from staleness import RERUNS
from test_staleness import furnish, setting

Change = Callable[[Project], None]
View = Callable[[str], list[str]]


@pytest.fixture
def view(finished: Project, dry_runs: DryRuns, tmp_path: Path) -> Iterator[Callable[[Change], View]]:
    """What Snakemake prints of a copy of the finished run after a change, by option."""

    def after(change: Change) -> View:
        project = finished.linked_twin(tmp_path / "project")
        furnish(project)
        change(project)

        def look(options: str) -> list[str]:
            done = dry_runs.run(project.folder, *options.split(), "--configfile", "tiny.yaml")
            assert done.returncode == 0, done.stdout
            return [line for line in done.stdout.splitlines() if line.startswith("results/")]

        return look

    yield after
    shutil.rmtree(tmp_path / "project", ignore_errors=True)


def nothing(_project: Project) -> None:
    """Leave all as it is."""


def pending(lines: list[str]) -> set[str]:
    """The rules of files that a summary calls pending."""
    return {line.split("\t")[2] for line in lines if line.endswith("update pending")}


def test_unchanged_run_lists_no_change_and_its_summary_nothing_to_update(view: Callable[[Change], View]) -> None:
    look = view(nothing)
    for kind in ("params", "input", "code"):
        assert look(f"--list-changes {kind}") == []
    lines = look("--summary")
    assert len(lines) > 50
    assert {line.split("\t")[-1] for line in lines} == {"no update"}
    assert {line.split("\t")[-2] for line in lines} == {"ok", "removed temp file"}


def test_changed_setting_lists_what_it_changes_and_the_summary_what_must_be_made_again(
    view: Callable[[Change], View],
) -> None:
    look = view(setting("package.ollama.temperature", RERUNS["package.ollama.temperature"][0]))
    assert sorted(look("--list-changes params")) == ["results/tiny/config.json", "results/tiny/model/Modelfile"]
    rules = pending(look("--summary"))
    assert "write_modelfile" in rules
    assert not rules & {"train_adapter", "generate_answers", "fuse_adapter"}


def test_graph_of_an_unchanged_run_shows_every_job_as_done(finished: Project, dry_runs: DryRuns) -> None:
    graph = dry_runs.run(finished.folder, "--dag", "--configfile", "tiny.yaml")
    jobs = [line for line in graph.stdout.splitlines() if "label" in line]
    assert len(jobs) > 30
    assert all("dashed" in job for job in jobs)
