"""The bake-off on the page: who is on the Pareto front, what stands in the table, and what the remarks may say."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_copies import RunCopies
from snaketune.contracts.train import TrainingTiming
from snaketune.evaluate.metrics import METRICS
from snaketune.report import bake_off, collect
from unit.evaluate.test_bake_off import compared, method

EXACT = METRICS["exact_match"]


def cost(seconds: float, memory: float = 1e9) -> bake_off.Cost:
    return bake_off.Cost(
        seconds=seconds, cpu_seconds=seconds, tokens_per_second=9.0, peak_resident_bytes=memory, resumed=False
    )


METHODS = [method("slow", 0.9, 0.5, 1), method("quick", 0.7, 0.9, 2), method("wasteful", 0.5, 1.2, 3)]


def test_who_is_slower_and_no_better_is_not_on_the_front():
    found = compared(*METHODS)
    costs = {"base model": None, "slow": cost(90), "quick": cost(10), "wasteful": cost(50)}
    assert bake_off.pareto_front(found, costs, EXACT) == {"base model", "quick", "slow"}


@given(seconds=st.lists(st.floats(0.1, 1e4), min_size=3, max_size=3))
def test_the_best_method_and_the_zero_line_are_always_on_the_front(seconds):
    found = compared(*METHODS)
    costs = {"base model": None} | {one.name: cost(each) for one, each in zip(METHODS, seconds, strict=True)}
    assert {"base model", "slow"} <= bake_off.pareto_front(found, costs, EXACT)


def test_a_method_that_was_not_timed_is_neither_on_the_front_nor_in_its_way():
    costs = {"base model": None, "slow": None, "quick": cost(10), "wasteful": cost(9)}
    assert bake_off.pareto_front(compared(*METHODS), costs, EXACT) == {"base model", "quick", "wasteful"}


@pytest.fixture(scope="module")
def contest(run_copies: RunCopies, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    run = run_copies.make(tmp_path_factory.mktemp("results") / "contest", rows=30)
    report = msgspec.structs.replace(collect.collect(run), bake_off=compared(*METHODS, method("twice", 0.8, 0.7, 5, 6)))
    measured = collect.measurements(run)
    timing = TrainingTiming(
        seconds=40,
        cpu_seconds=70,
        tokens_per_second=300,
        peak_memory_bytes=1,
        peak_resident_bytes=700_000_000,
        resumed_from=0,
    )
    timings = {"slow": timing, "twice": msgspec.structs.replace(timing, seconds=80, resumed_from=3)}
    return report, msgspec.structs.replace(measured, training=timings)


def test_every_method_is_a_row_and_has_its_number_in_the_picture(contest):
    view = bake_off.view(*contest)
    assert [(row.number, row.name) for row in view.rows] == [
        (None, "base model"),
        (1, "slow"),
        (2, "quick"),
        (3, "wasteful"),
        (4, "twice"),
    ]
    picture = bake_off.picture(*contest)
    assert "1 slow" in picture
    assert "4 twice" in picture
    assert "2 quick" not in picture  # of which no time is known
    assert "base model" in picture


def test_remarks_say_how_many_beat_the_base_and_how_much_is_luck(contest):
    view = bake_off.view(*contest)
    assert view.remarks[0] == "Against the base model, 4 of 4 methods are shown to be better."
    assert "is that luck" in view.remarks[1] or view.remarks[1].startswith("Seeds: ")


def test_one_seed_a_method_is_said_to_prove_little_and_what_to_do(contest):
    report, measured = contest
    view = bake_off.view(msgspec.structs.replace(report, bake_off=compared(*METHODS)), measured)
    assert "grid: {seed: [1, 2, 3]}" in view.remarks[-1]


def test_a_run_without_a_bake_off_has_no_such_section(contest):
    report, measured = contest
    assert bake_off.view(msgspec.structs.replace(report, bake_off=None), measured) is None
