"""Snakemake's own ways of looking at a run (--summary, --list-changes) say what is so."""

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


@pytest.mark.parametrize("kind", ["params", "input"])
def test_unchanged_run_lists_no_change(kind: str, view: Callable[[Change], View]) -> None:
    assert view(nothing)(f"--list-changes {kind}") == []


def test_summary_of_an_unchanged_run_has_nothing_to_update(view: Callable[[Change], View]) -> None:
    lines = view(nothing)("--summary")
    assert len(lines) > 50
    assert {line.split("\t")[-1] for line in lines} == {"no update"}
    assert {line.split("\t")[-2] for line in lines} == {"ok", "removed temp file"}


def test_changed_setting_lists_what_it_changes_and_the_summary_what_must_be_made_again(
    view: Callable[[Change], View],
) -> None:
    look = view(setting("package.ollama.temperature", RERUNS["package.ollama.temperature"][0]))
    assert "results/tiny/model/Modelfile" in look("--list-changes params")
    assert "results/tiny/train/main/adapters.safetensors" not in look("--list-changes params")
    rules = pending(look("--summary"))
    assert "write_modelfile" in rules
    assert not rules & {"train_adapter", "generate_answers", "fuse_adapter"}
