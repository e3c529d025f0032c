"""Experiments through Snakemake: each is trained once, later only what is new, and the pages show them all."""

import json
from pathlib import Path

import families
import pytest
import yaml
from dry_runs import DryRuns
from project_copy import Project
from snaketune.report import page


def with_settings(project: Project, **sections: dict) -> None:
    given = yaml.safe_load((project.folder / "tiny.yaml").read_text())
    for name, values in sections.items():
        given[name] = {**given.get(name, {}), **values}
    project.write("tiny.yaml", yaml.safe_dump(given, sort_keys=False))


NAMES = {"main", "plainly", "another", "rank-5"}


def trained(said: str) -> int:
    return said.count("] train_adapter ")


@pytest.fixture(scope="module")
def grid(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Beside the one that was trained, a grid, another template, a base of another family, and a learning curve.

    Their names are in no alphabetical order.
    """
    project = finished.twin(tmp_path_factory.mktemp("experiments") / "project")
    families.build(project.folder / "other-base", "smollm", dtype="float32")
    experiments = {
        "main": {"rank": 4},
        "plainly": {"chat_template": "alpaca", "learning_rate": 1e-5},
        "another": {"base": "other-base", "chat_template": "chatml", "learning_rate": 1e-6},
    }
    with_settings(
        project,
        grid={"rank": [5]},
        experiments=experiments,
        pilot={"learning_curve": [0.5, 1.0]},
    )
    done = project.snakemake("train")
    assert done.returncode == 0, done.stdout
    assert "] decide_pilot" in done.stdout
    assert trained(done.stdout) == 3  # main is the adapter that was there, although the pilot's decision is made anew
    return project


def read(project: Project, name: str) -> dict:
    return json.loads((project.folder / "results/tiny" / name).read_text())


def test_every_experiment_is_trained_once_each_on_its_own_base(grid: Project, dry_runs: DryRuns) -> None:
    assert "Nothing to be done" in dry_runs.run(grid.folder, "train", "--configfile", "tiny.yaml").stdout
    found = {one["experiment"]: one for one in read(grid, "train/selection.json")["experiments"]}
    assert set(found) == NAMES
    assert found["another"]["parameters"] != found["main"]["parameters"] == found["plainly"]["parameters"]
    assert found["rank-5"]["settings"]["rank"] == 5
    for name in NAMES:
        adapter = read(grid, f"train/{name}/adapter_config.json")
        assert adapter["lora_parameters"]["rank"] == found[name]["settings"]["rank"]
        assert read(grid, f"train/{name}/summary.json")["best_validation_loss"] == found[name]["validation_loss"]


def test_the_adapter_that_is_handed_on_is_the_chosen_experiments(grid: Project) -> None:
    run = grid.folder / "results/tiny"
    chosen = read(grid, "train/selection.json")["experiment"]
    handed_on = (run / "model/adapter/adapters.safetensors").read_bytes()
    same = [name for name in NAMES if (run / f"train/{name}/adapters.safetensors").read_bytes() == handed_on]
    assert same == [chosen]
    read_as = read(grid, "model/base.json")["read_as"]
    assert read_as["chat_template"] == {"plainly": "alpaca", "another": "chatml"}.get(chosen)
    assert read(grid, "pilot/adapter_config.json")["lora_parameters"]["rank"] == 4


def test_each_template_on_one_base_has_tokens_of_its_own(grid: Project) -> None:
    stores = sorted(path.parent.name for path in (grid.folder / "results/tiny/data/tokens").glob("*/tokens.json"))
    assert [name.split("-")[-1] for name in stores if name.endswith(("-alpaca", "-chatml"))] == ["chatml", "alpaca"]
    assert len(stores) == 3


def test_the_plan_and_the_decision_speak_of_all_of_them_and_say_which_one_was_tried(grid: Project) -> None:
    assert list(read(grid, "plan.json")["experiments"]) == ["main", "plainly", "another", "rank-5"]
    decision = read(grid, "pilot/decision.json")
    assert decision["piloted"] == {"experiment": "main", "of": 4}
    assert decision["forecast"]["seconds"]["other_experiments"] > 0
    assert read(grid, "train/main/timing.json")["forecast"]["seconds"] > 0
    assert "forecast" not in read(grid, "train/rank-5/timing.json")


def test_a_learning_curve_is_trained_on_nested_parts_and_judged(grid: Project) -> None:
    curve = read(grid, "pilot/decision.json")["learning_curve"]
    assert [point["rows"] for point in curve["points"]] == [10, 20]
    assert curve["more_data_helps"] in ("likely", "unlikely", "unclear")


def test_the_page_shows_all_experiments(grid: Project, tmp_path: Path) -> None:
    page.run(
        folder=grid.folder / "results/tiny",
        page=tmp_path / "index.html",
        record=tmp_path / "report.json",
        form=tmp_path / "form.html",
        table=tmp_path / "t.csv",
    )
    html = (tmp_path / "index.html").read_text()
    names = {one["name"] for one in json.loads((tmp_path / "report.json").read_text())["training"]["experiments"]}
    assert names >= NAMES
    for name in NAMES:
        assert f">{name}<" in html


def test_one_more_value_trains_what_is_new_alone(grid: Project, tmp_path: Path, dry_runs: DryRuns) -> None:
    """That a training which is not stale is left alone was seen when the grid was trained beside main."""
    project = grid.linked_twin(tmp_path / "project")
    with_settings(project, grid={"rank": [5, 6]})
    stale = dry_runs.stale(project.folder, "train", "--configfile", "tiny.yaml")
    assert {job for job in stale if job.startswith("train_adapter:")} == {"train_adapter:rank-6"}
    assert "select_experiment" in stale
