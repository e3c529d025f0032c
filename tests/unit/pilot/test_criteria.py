"""What a pilot must show, on made numbers."""

from __future__ import annotations

import ast
import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snaketune.contracts.train import StepMetrics, ValidationMetrics
from snaketune.pilot import criteria, decide

TARGETS = np.full(60, 10)


def rows(mean: float, spread: float, seed: int, count: int = 60) -> np.ndarray:
    """Log-probabilities of rows of ten targets each."""
    return np.random.default_rng(seed).normal(10 * mean, 10 * spread, count)


def logged(step: int, loss: float | None, grad_norm: float | None = 1.0) -> StepMetrics:
    return StepMetrics(
        step=step,
        epoch=None,
        loss=loss,
        learning_rate=0.1,
        grad_norm=grad_norm,
        num_target_tokens=1,
        padding_ratio=0.0,
    )


def losses(values: list[float]) -> list[StepMetrics]:
    return [logged(number, value) for number, value in enumerate(values, 1)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_pilot_equal_to_its_base_is_never_called_better(seed):
    base = rows(-3, 0.5, seed)
    assert criteria.validation_better_than_base(base, base.copy(), TARGETS, seed).result == "fail"


def test_chance_passes_for_a_gain_about_as_often_as_the_interval_says():
    passed = sum(
        criteria.validation_better_than_base(rows(-3, 0.5, seed), rows(-3, 0.5, seed + 5000), TARGETS, seed).result
        == "pass"
        for seed in range(150)
    )
    assert passed <= 150 * 0.05


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_clear_gain_passes_and_a_clear_loss_fails(seed):
    base = rows(-3, 0.3, seed)
    assert criteria.validation_better_than_base(base, base + 10, TARGETS, seed).result == "pass"
    assert criteria.validation_better_than_base(base, base - 10, TARGETS, seed).result == "fail"


def test_answers_that_no_question_makes_likelier_fail_with_the_share_of_rows():
    own = rows(-2, 0.5, 1)
    found = criteria.prompt_dependence(own, rows(-2, 0.5, 2), TARGETS, 1)
    assert found.result == "fail"
    assert "% of the rows" in found.message
    assert criteria.prompt_dependence(own, own - 8, TARGETS, 1).result == "pass"


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_rows_are_unknown_rather_than_a_no_go(count):
    few = rows(-2, 0.5, 1, count)
    assert criteria.validation_better_than_base(few, few, TARGETS[:count], 1).result == "unknown"
    assert criteria.prompt_dependence(few, few, TARGETS[:count], 1).result == "unknown"
    assert criteria.score_not_worse_than_base(few, few, "chrF", 1).result == "unknown"


def test_probabilities_that_are_not_finite_fail():
    broken = rows(-2, 0.5, 1)
    broken[3] = np.nan
    assert criteria.validation_better_than_base(rows(-2, 0.5, 1), broken, TARGETS, 1).result == "fail"
    assert criteria.prompt_dependence(broken, broken, TARGETS, 1).result == "fail"


def test_a_loss_that_stays_where_it_is_hardly_ever_counts_as_fallen():
    source = np.random.default_rng(1)
    falls = [criteria.loss_fell(losses(source.normal(3, 0.2, 60).tolist())) for _ in range(400)]
    assert sum(fall.result == "pass" for fall in falls) < 0.05 * len(falls)


def test_a_falling_loss_passes_and_a_rising_one_fails():
    noise = np.random.default_rng(0).normal(0, 0.1, 60)
    assert criteria.loss_fell(losses((np.linspace(5, 2, 60) + noise).tolist())).result == "pass"
    assert criteria.loss_fell(losses((np.linspace(2, 5, 60) + noise).tolist())).result == "fail"
    assert criteria.loss_fell(losses([5.0, 4.0])).result == "unknown"


def test_a_loss_or_norm_that_was_not_a_number_fails():
    good = logged(1, 1.0, 2.0)
    assert criteria.finite([good]).result == "pass"
    assert criteria.finite([good, logged(2, None)]).result == "fail"
    assert criteria.finite([good, ValidationMetrics(step=2, validation_loss=None)]).result == "fail"


def test_an_adapter_many_times_larger_than_its_model_fails():
    assert criteria.adapter_norm_ratio(0.2, "lora").result == "pass"
    assert criteria.adapter_norm_ratio(30.0, "dora").result == "fail"
    assert criteria.adapter_norm_ratio(float("nan"), "lora").result == "fail"


def test_a_full_training_has_no_adapter_whose_norm_could_be_told():
    found = criteria.adapter_norm_ratio(None, "full")
    assert found.result == "unknown"
    assert "all weights are trained" in found.message


def test_learned_vectors_may_be_many_times_longer_than_words_but_not_without_end():
    assert criteria.adapter_norm_ratio(30.0, "prompt").result == "pass"
    for size in (300.0, float("nan"), float("inf")):
        failed = criteria.adapter_norm_ratio(size, "prompt")
        assert (failed.name, failed.result) == ("prompt norm ratio", "fail")
        assert "learning_rate is too high" in criteria.likely_cause([failed], 5, beat_base=True)


def test_answers_are_worse_only_beyond_chance():
    base = np.random.default_rng(1).uniform(20, 60, 16)
    noise = np.random.default_rng(2).normal(0, 10, 16)
    assert criteria.score_not_worse_than_base(base, base + noise, "chrF", 1).result == "pass"
    assert criteria.score_not_worse_than_base(base, base - 30, "chrF", 1).result == "fail"


def test_memory_and_time_are_held_against_their_limits():
    assert criteria.memory(10, 10).result == "pass"
    assert criteria.memory(11, 10).result == "fail"
    assert criteria.time(9.0, 11.0, 10.0).result == "pass"
    assert criteria.time(10.5, 12.0, 10.0).result == "fail"
    assert criteria.time(20.0, 40.0, 10.0).result == "unknown"


@pytest.mark.parametrize(
    ("failed", "best_step", "words"),
    [
        (["finite", "loss fell"], 0, "too high"),
        (["adapter norm ratio", "prompt dependence"], 10, "too high, and has broken the model"),
        (["loss fell", "validation better than base", "prompt dependence"], 0, "nothing was learnt"),
        (["validation better than base"], 0, "made validation worse"),
        (["prompt dependence"], 10, "do not belong to their questions"),
        (["time"], 10, "pilot.max_hours"),
    ],
)
def test_the_likely_cause_is_that_of_the_failures_together(failed, best_step, words):
    found = [criteria.Criterion(name, 0.0, 0.0, "fail", "") for name in failed]
    assert words in criteria.likely_cause(found, best_step, beat_base=best_step > 0)


def test_prompt_tuning_that_gained_but_not_up_to_its_base_is_told_to_learn_faster_or_longer():
    failure = criteria.Criterion("validation better than base", -1.0, 0.0, "fail", "")
    assert "learning_rate is too low" in criteria.likely_cause([failure], 10, beat_base=False)
    assert "larger than chance" in criteria.likely_cause([failure], 0, beat_base=True)


@pytest.mark.parametrize("beat_base", [False, True])
@pytest.mark.parametrize("best_step", [0, 10])
def test_every_criterion_that_fails_alone_has_a_likely_cause(best_step, beat_base):
    decided = ast.parse(inspect.getsource(decide.evaluate_criteria))
    functions = [node.func.attr for node in ast.walk(decided) if isinstance(node, ast.Call)]
    assert {"finite", "memory"} < set(functions)
    for function in functions:
        failure = criteria.Criterion(function.replace("_", " "), 0.0, 0.0, "fail", "")
        assert criteria.likely_cause([failure], best_step, beat_base=beat_base), function


def test_a_go_has_no_cause():
    assert criteria.likely_cause([criteria.memory(1, 2)], 5, beat_base=True) is None


def test_the_table_has_a_line_for_each_criterion():
    records = [criteria.memory(10, 20), criteria.time(1, 1.2, 0.5)]
    lines = criteria.table(records).splitlines()
    assert [line.split()[:2] for line in lines] == [["pass", "memory"], ["fail", "time"]]
