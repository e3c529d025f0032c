"""A contest of methods through Snakemake: every experiment answers the test rows, and the page compares them."""

import json
from pathlib import Path

import pytest
import yaml
from dry_runs import DryRuns
from project_copy import Project
from snaketune.contracts.bake_off import BakeOff
from snaketune.files import read_json
from snaketune.report import page

COMPARED = "results/tiny/evaluation/experiments.json"
EXPERIMENTS = {"quick": {"learning_rate": 3e-2}, "alone": {"rank": 3, "seed": 5}}


@pytest.fixture(scope="module")
def contest(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = finished.twin(tmp_path_factory.mktemp("contest") / "project")
    path = project.folder / "tiny.yaml"
    given = yaml.safe_load(path.read_text())
    given |= {"experiments": EXPERIMENTS, "grid": {"seed": [2, 1]}}
    given["evaluate"] = {**given.get("evaluate", {}), "experiments": True}
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    done = project.snakemake(COMPARED)
    assert done.returncode == 0, done.stdout
    return project


def compared(project: Project) -> BakeOff:
    return read_json(project.folder / COMPARED, BakeOff)


def test_trainings_that_differ_in_their_seed_alone_are_one_method(contest: Project) -> None:
    found = {one.name: one for one in compared(contest).methods}
    assert list(found) == ["base model", "base with a prompt", "quick", "alone"]
    assert found["quick"].experiments == ["quick_seed-2", "quick_seed-1"]
    assert found["alone"].experiments == ["alone"]
    assert len(set(found["quick"].losses)) == 2
    run = contest.folder / "results/tiny"
    for name in ("quick_seed-2", "quick_seed-1", "alone"):
        summary = json.loads((run / f"train/{name}/summary.json").read_text())
        assert summary["seed"] == {"quick_seed-2": 2, "quick_seed-1": 1, "alone": 5}[name]


def test_the_scores_of_a_method_lie_between_those_of_its_seeds(contest: Project) -> None:
    for method in compared(contest).methods:
        assert min(method.losses) - 1e-9 <= method.loss.value <= max(method.losses) + 1e-9
        if method.is_trained:
            assert method.validation_loss == pytest.approx(sum(method.validation_losses) / len(method.experiments))
            assert method.adapter_bytes > 1000
        else:
            assert method.validation_loss is None


def test_every_pair_is_tested_once_and_corrected_for_all_tests_and_seeds_have_their_luck(contest: Project) -> None:
    found = compared(contest)
    pairs = [(pair.method, pair.baseline) for pair in found.pairs]
    assert len(pairs) == len({frozenset(pair) for pair in pairs}) == 2 + 2 + 1
    assert found.num_tests == sum(len(pair.metrics) for pair in found.pairs) == 10
    entries = [entry for pair in found.pairs for entry in pair.metrics.values()]
    assert all(entry.p <= entry.p_corrected <= 1 for entry in entries)
    assert set(found.luck) == {found.measure, found.likelihood}
    assert found.luck["perplexity"].degrees_of_freedom == 1
    by_pair = {frozenset((pair.method, pair.baseline)): pair.luck["perplexity"] for pair in found.pairs}
    # in one training there is more luck than in a mean of two, and in a base that was not trained there is none
    assert by_pair[frozenset(("alone", "quick"))] > by_pair[frozenset(("alone", "base model"))]
    assert by_pair[frozenset(("alone", "base model"))] > by_pair[frozenset(("quick", "base model"))]


def test_the_page_has_one_table_and_one_picture_of_all_methods(contest: Project, tmp_path: Path) -> None:
    """The chosen adapter is not packaged for it; that the page waits for the contest is in the staleness table."""
    written = {name: tmp_path / name for name in ("page", "record", "form", "table")}
    page.run(folder=contest.folder / "results/tiny", **written)
    html = written["page"].read_text(encoding="utf-8")
    section = html[html.index('<section id="bake-off"') :]
    section = section[: section.index("</section>")]
    assert section.count("<svg") == 1
    assert section.count("<tbody>") == 1
    for name in ("quick", "alone", "base with a prompt"):
        assert f"<bdi>{name}</bdi>" in section
    assert compared(contest).conclusion in section.replace("\u00a0", " ")


def test_what_has_been_answered_is_not_answered_again(contest: Project, dry_runs: DryRuns) -> None:
    assert "Nothing to be done" in dry_runs.run(contest.folder, COMPARED, "--configfile", "tiny.yaml").stdout
