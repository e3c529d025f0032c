"""Experiments through Snakemake: each is trained once, later only what is new, and the pages show them all."""

import json
from pathlib import Path

import families
import pytest
import yaml
from projects import Project
from snaketune.report import page


def with_settings(project: Project, **sections: dict) -> None:
    path = project.folder / "tiny.yaml"
    given = yaml.safe_load(path.read_text())
    for name, values in sections.items():
        given[name] = {**given.get(name, {}), **values}
    path.write_text(yaml.safe_dump(given))


def trained(said: str) -> int:
    return said.count("rule train_adapter:")


@pytest.fixture(scope="module")
def grid(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Beside the one that was trained, a grid, a base of another family with its own template, and a learning curve."""
    project = finished.twin(tmp_path_factory.mktemp("experiments") / "project")
    families.build(project.folder / "other-base", "smollm", dtype="float32")
    other = {"base": "other-base", "template": "chatml", "learning_rate": 1e-6}
    with_settings(
        project,
        grid={"rank": [5]},
        experiments={"main": {"rank": 4}, "other": other},
        pilot={"learning_curve": [0.5, 1.0]},
    )
    done = project.snakemake("train")
    assert done.returncode == 0, done.stdout
    assert "rule decide_pilot:" in done.stdout
    assert trained(done.stdout) == 2  # main is the adapter that was there, although the pilot's decision is made anew
    return project


def read(project: Project, name: str) -> dict:
    return json.loads((project.folder / "results/tiny" / name).read_text())


def test_every_experiment_is_trained_once_each_on_its_own_base(grid: Project) -> None:
    assert "Nothing to be done" in grid.snakemake("train").stdout
    found = {one["experiment"]: one for one in read(grid, "train/selection.json")["experiments"]}
    assert set(found) == {"main", "other", "rank-5"}
    assert found["other"]["parameters"] != found["main"]["parameters"]
    chosen = read(grid, "train/selection.json")["experiment"]
    read_as = read(grid, "model/base.json")["read_as"]
    assert read_as["template"] == ("chatml" if chosen == "other" else None)


def test_the_plan_and_the_decision_speak_of_all_of_them_and_say_which_one_was_tried(grid: Project) -> None:
    assert set(read(grid, "plan.json")["experiments"]) == {"main", "other", "rank-5"}
    decision = read(grid, "pilot/decision.json")
    assert decision["piloted"] == {"experiment": "main", "of": 3}
    assert decision["forecast"]["seconds"]["other_experiments"] > 0
    assert read(grid, "train/main/timing.json")["forecast"]["seconds"] > 0
    assert "forecast" not in read(grid, "train/rank-5/timing.json")


def test_a_learning_curve_is_trained_on_nested_parts_and_judged(grid: Project) -> None:
    curve = read(grid, "pilot/decision.json")["learning_curve"]
    assert [point["rows"] for point in curve["points"]] == [10, 20]
    assert curve["verdict"] in ("likely", "unlikely", "unclear")


def test_one_more_value_trains_what_is_new_and_the_page_shows_all(grid: Project, tmp_path: Path) -> None:
    project = grid.twin(tmp_path / "project")
    with_settings(project, grid={"rank": [5, 6]})
    done = project.snakemake("train")
    assert done.returncode == 0, done.stdout
    assert trained(done.stdout) == 1
    folder = project.folder / "results/tiny"
    page.run(folder=folder, page=tmp_path / "index.html", record=tmp_path / "report.json", form=tmp_path / "form.html")
    html = (tmp_path / "index.html").read_text()
    names = {one["name"] for one in json.loads((tmp_path / "report.json").read_text())["training"]["experiments"]}
    assert {"main", "other", "rank-5", "rank-6"} <= names
    for name in ("main", "other", "rank-5", "rank-6"):
        assert f">{name}<" in html
