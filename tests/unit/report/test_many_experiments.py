"""A thousand experiments on one page: what is shown stays readable, and says what matters."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from run_copies import RunCopies, repeat_experiment
from snaketune.contracts.evaluate import ExperimentResult, Selection
from snaketune.report import collect, experiments, page


def ranked(ranks: range, rates: range) -> Selection:
    """A selection in which the rank matters and the learning rate hardly does."""
    results = [
        ExperimentResult(
            experiment=f"rank-{rank}_rate-{rate}",
            validation_loss=3.0 - 0.1 * rank + 0.001 * rate,
            base_validation_loss=4.0,
            total_nll=None,
            best_step=1,
            steps=1,
            trainable_parameters=rank,
            parameters=100,
            score=None,
            settings={"learning_rate": rate, "rank": rank},
        )
        for rank, rate in itertools.product(ranks, rates)
    ]
    results.sort(key=lambda result: result.validation_loss or 0.0)
    return Selection(experiment=results[0].experiment, metric="validation loss", reasons=[], experiments=results)


def test_of_a_thousand_the_best_the_worst_and_the_chosen_are_shown() -> None:
    found = ranked(range(10), range(100))
    names = [result.experiment for result in found.experiments]
    assert experiments.select_shown(sorted(names), found) == names[: experiments.TOP] + names[-experiments.BOTTOM :]
    assert names[500] in experiments.select_shown(names, msgspec.structs.replace(found, experiment=names[500]))
    most = experiments.MOST
    few = names[:most]
    assert experiments.select_shown(few, msgspec.structs.replace(found, experiments=found.experiments[:most])) == few


def test_the_setting_that_matters_stands_first() -> None:
    matters = experiments.setting_effects(ranked(range(10), range(100)))
    assert [effect.setting for effect in matters] == ["rank", "learning_rate"]
    assert matters[0].spread == pytest.approx(0.9)
    best = matters[0].values[0]
    assert (best.value, best.experiments) == (9, 100)
    assert best.best == pytest.approx(2.1)
    assert matters[1].left_out == 100 - experiments.MAX_VALUES


def test_few_experiments_are_left_to_the_reader() -> None:
    assert experiments.setting_effects(ranked(range(2), range(3))) == []


def test_page_of_many_experiments_is_no_longer_than_that_of_some(run_copies: RunCopies, tmp_path: Path) -> None:
    run = run_copies.make(tmp_path / "many")
    repeat_experiment(run, [f"point-{number}" for number in range(40)])
    report = collect.collect(run)
    assert len(report.training.experiments) == experiments.TOP + experiments.BOTTOM
    html = page.render(report, collect.measurements(run))
    assert "40 experiments were trained" in html
