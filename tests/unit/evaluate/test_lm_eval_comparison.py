"""What lm-eval says of base and fused model: pairs of documents, groups of tasks, and what is no number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.contracts.lm_eval import HarnessComparison, HarnessOutput, HarnessValue
from snaketune.evaluate import lm_eval_comparison

OWN = "snaketune_mine"


def value(each: list[float], *, higher_is_better: bool | None = True) -> HarnessValue:
    mean = sum(each) / len(each)
    return HarnessValue(value=mean, stderr=0.1, higher_is_better=higher_is_better, each=each, weights=[])


def perplexity(loglikelihoods: list[float], words: list[float]) -> HarnessValue:
    found = math.exp(-sum(loglikelihoods) / sum(words))
    return HarnessValue(value=found, stderr=None, higher_is_better=False, each=loglikelihoods, weights=words)


def output(tasks: dict[str, dict[str, HarnessValue]], groups: dict[str, list[str]] | None = None) -> HarnessOutput:
    return HarnessOutput(version="1", tasks=tasks, groups=groups or {})


def comparison(base: HarnessValue, fused: HarnessValue, task: str = "t") -> HarnessComparison:
    """The comparison of one metric of one task."""
    outputs = (output({task: {"metric": one}}) for one in (base, fused))
    (found,) = lm_eval_comparison.compared(*outputs, OWN)
    return found


def test_the_comparison_is_of_pairs() -> None:
    found = comparison(value([0.1, 0.2, 0.9, 0.4]), value([0.5, 0.6, 0.9, 0.4]))
    assert (found.documents, found.difference) == (4, pytest.approx(0.2))
    assert found.difference_stderr == pytest.approx(0.4 / math.sqrt(3) / 2)


@pytest.mark.parametrize(("fallen", "p"), [(1, 1.0), (2, 0.5), (6, 2 / 2**6), (10, 2 / 2**10)])
def test_right_and_wrong_answers_are_tested_exactly_so_that_few_documents_show_nothing(fallen: int, p: float) -> None:
    assert comparison(value([1.0] * fallen), value([0.0] * fallen)).p == pytest.approx(p)


def test_two_equal_models_do_not_differ() -> None:
    for each in ([0.0, 1.0, 1.0], [0.2, 0.7]):
        found = comparison(value(each), value(each))
        assert (found.difference, found.difference_stderr, found.p) == (0, 0, 1.0)


def test_a_perplexity_is_tested_by_the_likelihoods_of_its_documents_and_has_no_error_in_its_own_unit() -> None:
    words = [3.0 + n % 5 for n in range(40)]
    base = perplexity([-2 * n for n in words], words)
    worse = comparison(base, perplexity([-2.5 * n for n in words], words))
    assert (worse.documents, worse.difference_stderr) == (40, None)
    assert worse.p is not None
    assert worse.p < 0.001
    assert worse.is_worse(0.05)
    assert worse.ratio() == pytest.approx(math.exp(0.5))
    assert not comparison(base, perplexity([-1.5 * n for n in words], words)).is_worse(0.05)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_forgetting_is_a_fall_that_the_corrected_test_shows(pairs: list[tuple[bool, bool]]) -> None:
    base, fused = (value([float(one) for one in side]) for side in zip(*pairs, strict=True))
    found = comparison(base, fused)
    lost, gained = (sum(a > b for a, b in one) for one in (pairs, [(b, a) for a, b in pairs]))
    assert found.is_worse(0.05) == (lost > gained and (found.p_corrected or 0) < 0.05)
    assert comparison(base, fused, OWN).p_corrected is None
    unknown = msgspec.structs.replace(base, higher_is_better=None), fused
    assert not comparison(*unknown).is_worse(0.05)


def test_p_values_of_named_tasks_are_corrected_for_their_number() -> None:
    before, after = value([1.0] * 7), value([0.0] * 7)
    many = {f"task{number}": {"acc": before} for number in range(4)} | {OWN: {"acc": before}}
    others = {name: {"acc": after} for name in many}
    found = lm_eval_comparison.compared(output(many), output(others), OWN)
    alone = comparison(before, after)
    assert alone.p is not None
    assert alone.is_worse(0.05)
    assert [one.p_corrected for one in found] == [None, *[pytest.approx(4 * alone.p)] * 4]
    assert not any(one.is_worse(0.05) for one in found)


@pytest.mark.parametrize(
    ("better", "base", "fused", "ratio"), [(True, 0.6, 0.5, 1.2), (False, 10.0, 12.0, 1.2), (True, 0.6, 0.0, math.inf)]
)
def test_how_much_worse_is_a_multiple_as_with_perplexity(better: bool, base: float, fused: float, ratio: float) -> None:
    found = comparison(value([base], higher_is_better=better), value([fused], higher_is_better=better))
    assert found.ratio() == pytest.approx(ratio)


RIGHT = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12)


def group_comparison(tasks: Sequence[Sequence[tuple[float, float]]], *, by_size: bool) -> HarnessComparison:
    """The comparison of a group of tasks, of each of which the documents' pairs are given, by lm-eval's own mean."""
    outputs = []
    for side in (0, 1):
        parts = {f"part{number}": value([pair[side] for pair in pairs]) for number, pairs in enumerate(tasks)}
        sizes = [len(pairs) if by_size else 1 for pairs in tasks]
        mean = sum((one.value or 0) * size for one, size in zip(parts.values(), sizes, strict=True)) / sum(sizes)
        whole = HarnessValue(value=mean, stderr=0.1, higher_is_better=True, each=[], weights=[])
        made = {name: {"acc": one} for name, one in (parts | {"group": whole}).items()}
        outputs.append(output(made, {"group": list(parts)}))
    return next(one for one in lm_eval_comparison.compared(outputs[0], outputs[1], OWN) if one.task == "group")


@given(st.lists(RIGHT, min_size=1, max_size=4))
def test_a_group_weighted_by_size_is_tested_as_one_task_with_all_its_documents(tasks: list) -> None:
    found = group_comparison(tasks, by_size=True)
    base, fused = (value([float(pair[side]) for pairs in tasks for pair in pairs]) for side in (0, 1))
    alone = comparison(base, fused)
    assert (found.documents, found.p) == (alone.documents, alone.p)
    assert found.difference == pytest.approx(alone.difference)
    assert found.difference_stderr == pytest.approx(alone.difference_stderr)


def test_a_group_that_is_the_mean_of_its_tasks_is_tested_by_that_mean() -> None:
    """The small task alone got worse: among all documents it is lost, as a half of the group it is not."""
    large, small = [(float(n % 2), float(n % 2)) for n in range(400)], [(1.0, 0.0)] * 20
    found = group_comparison([large, small], by_size=False)
    assert (found.documents, found.difference) == (420, pytest.approx(-0.5))
    assert found.p is not None
    assert found.p < 0.001
    assert found.is_worse(0.05)
    unchanged = group_comparison([large, [(1.0, 1.0)] * 20], by_size=False)
    assert (unchanged.documents, unchanged.p) == (420, 1.0)


def test_a_group_whose_value_is_no_mean_of_its_documents_has_no_p_value() -> None:
    words = [3.0, 4.0, 5.0]
    part = perplexity([-6.0, -9.0, -8.0], words)
    whole = HarnessValue(value=part.value, stderr=None, higher_is_better=False, each=[], weights=[])
    made = output({"group": {"ppl": whole}, "part": {"ppl": part}}, {"group": ["part"]})
    group, alone = lm_eval_comparison.compared(made, made, OWN)
    assert (group.task, group.documents, group.p) == ("group", 0, None)
    assert alone.p is not None


def test_a_metric_that_is_no_number_is_kept_beside_the_others_and_shows_no_forgetting() -> None:
    right = value([1.0] * 9)
    nothing = HarnessValue(value=None, stderr=None, higher_is_better=True, each=[], weights=[])
    for base, fused, is_broken in ((right, nothing, True), (nothing, right, False), (nothing, nothing, False)):
        found = comparison(base, fused)
        assert (found.difference, found.p, found.documents, found.ratio()) == (None, None, 0, None)
        assert found.is_broken() == is_broken
        assert not found.is_worse(0.05)
    outputs = (
        output({"a": {"acc": right}, "b": {"acc": one}, "group": {"acc": one}}, {"group": ["a", "b"]})
        for one in (right, nothing)
    )
    kept = {one.task: one.p for one in lm_eval_comparison.compared(*outputs, OWN)}
    assert kept == {"a": 1.0, "b": None, "group": None}
