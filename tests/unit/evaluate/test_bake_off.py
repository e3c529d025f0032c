"""Methods against each other: seeds are luck, a difference must be more than that, and the sentence says no more."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.contracts.bake_off import BakeOff
from snaketune.contracts.evaluate import Prediction
from snaketune.evaluate import bake_off, significance
from snaketune.evaluate.bake_off import MOST_TO_CROSS, Contestant, pairs_of, seed_luck
from snaketune.evaluate.metrics import METRICS
from snaketune.evaluate.run_metrics import MetricSettings

EXACT, LOSS = METRICS["exact_match"], METRICS["perplexity"]


def answers(right: float, loss: float, seed: int, rows: int = 120) -> list[Prediction]:
    """Predictions of which so many are right, with about that loss a token."""
    draw = random.Random(seed)
    return [
        Prediction(
            id=f"{number:04d}",
            prompt="?",
            reference="ja",
            answer="ja" if draw.random() < right else "nein",
            logprob=-4 * max(0.01, loss + draw.gauss(0, 0.05)),
            num_target_tokens=4,
            bytes=2,
            stopped=True,
        )
        for number in range(rows)
    ]


def method(name: str, right: float, loss: float, *seeds: int) -> Contestant:
    return Contestant(name, [answers(right, loss, seed) for seed in seeds])


ZERO = Contestant("base model", [answers(0.02, 3.0, 99)], is_trained=False)


def compared(*methods: Contestant) -> BakeOff:
    found = bake_off.compared([ZERO, *methods], EXACT, LOSS, seed=1)
    # as trainings say it of themselves
    for one in found.methods:
        if one.name != ZERO.name:
            one.experiments.append(one.name)
    return found


def concluded(*methods: Contestant) -> str:
    return bake_off.conclude(compared(*methods), EXACT)


def test_a_clear_winner_is_named_with_its_value():
    sentence = concluded(method("weak", 0.3, 1.5, 1), method("strong", 0.95, 0.3, 2), method("poor", 0.1, 2.0, 3))
    assert sentence.startswith("strong (exact match 9")
    assert sentence.endswith("is shown to be the best of the 3 methods.")


def test_methods_that_answer_alike_are_not_told_apart():
    sentence = concluded(method("one", 0.6, 1.0, 4), method("other", 0.6, 1.0, 5))
    assert sentence == "No difference between the 2 methods that these 120 rows could show."


def test_of_several_methods_those_that_are_shown_worse_and_those_that_are_not_are_told_apart():
    sentence = concluded(method("zebra", 0.93, 0.4, 1), method("apple", 0.95, 0.4, 2), method("middle", 0.2, 2.0, 3))
    assert "is shown to be better than middle; no difference to " in sentence


def test_a_difference_that_seeds_alone_make_is_not_shown_however_sure_the_rows_are():
    uneven = Contestant("uneven", [answers(0.95, 0.4, 1), answers(0.35, 1.2, 2)])
    steady = Contestant("steady", [answers(0.4, 1.1, 3), answers(0.38, 1.1, 4)])
    found = compared(uneven, steady)
    (pair,) = [one for one in found.pairs if one.baseline != ZERO.name]
    assert pair.metrics["exact_match"].outcome != "no difference shown"
    assert pair.luck["exact_match"] > abs(pair.metrics["exact_match"].difference)
    assert bake_off.conclude(found, EXACT).startswith("No difference between the 2 methods")


def test_the_deviation_of_seeds_is_that_within_methods_and_its_share_nears_one_where_methods_are_alike():
    luck = seed_luck([[1.0, 2.0, 3.0], [11.0, 12.0, 13.0]])
    assert luck.deviation == pytest.approx(1.0)
    assert luck.degrees_of_freedom == 4
    assert luck.share == pytest.approx(1 / (1 + (150 - 1) / 3))
    assert seed_luck([[1.0, 5.0], [2.0, 4.0]]).share == 1.0
    assert seed_luck([[1.0], [2.0]]) is None
    assert seed_luck([[1.0, 2.0]]).share is None


@given(values=st.lists(st.lists(st.floats(-10, 10), min_size=1, max_size=4), min_size=1, max_size=5))
def test_luck_does_not_depend_on_the_order_of_methods_or_seeds_or_on_a_shift(values):
    first = seed_luck(values)
    other = seed_luck([[value + 3 for value in reversed(one)] for one in reversed(values)])
    if first is None:
        assert other is None
        return
    assert other.deviation == pytest.approx(first.deviation, abs=1e-6)
    assert other.degrees_of_freedom == first.degrees_of_freedom


def test_a_method_of_several_seeds_has_the_mean_of_its_rows():
    one = method("three", 0.5, 1.0, 1, 2, 3)
    score = one.score(EXACT, 1)
    assert score.value == pytest.approx(statistics.fmean(one.values(EXACT)))
    losses = [math.log(value) for value in one.values(LOSS)]
    assert math.log(one.score(LOSS, 1).value) == pytest.approx(statistics.fmean(losses))


def test_many_methods_are_compared_with_the_first_alone():
    few = [Contestant(str(number), [answers(0.5, 1.0, number, rows=3)]) for number in range(MOST_TO_CROSS)]
    assert len(pairs_of(few)) == MOST_TO_CROSS * (MOST_TO_CROSS - 1) / 2
    many = [*few, Contestant("late", [answers(0.5, 1.0, 50, rows=3)])]
    assert [(one.name, other.name) for one, other in pairs_of(many)] == [(one.name, "0") for one in many[1:]]


def test_perplexity_is_left_for_bits_per_byte_where_tokens_differ():
    other = [
        Prediction(id=one.id, prompt="", reference="ja", answer="ja", logprob=-1, num_target_tokens=7, bytes=2)
        for one in answers(1, 1, 1)
    ]
    config = bake_off.BakeOffConfig(methods=[], settings=settings(), measure="validation_loss", seed=1)
    measure, likelihood = bake_off.chosen_metrics(config, [ZERO, Contestant("other", [other])])
    assert (measure.name, likelihood.name) == ("exact_match", "bits_per_byte")
    assert bake_off.chosen_metrics(config, [ZERO])[1].name == "perplexity"


def settings() -> MetricSettings:
    from snaketune.config.sections import load

    return MetricSettings.of(load({"run": "a"}).evaluate)


def test_the_measure_is_the_one_that_select_names():
    config = bake_off.BakeOffConfig(methods=[], settings=settings(), measure="chrf", seed=1)
    assert bake_off.chosen_metrics(config, [ZERO])[0].name == "chrf"


@pytest.mark.parametrize(("free", "known"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (60, 2.000)])
def test_quantiles_of_student_are_those_of_the_tables(free, known):
    assert significance.student_quantile(free) == pytest.approx(known, rel=0.01)
