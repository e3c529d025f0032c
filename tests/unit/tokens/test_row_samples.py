"""Rows that stand for a split: which are taken, and what is read of a long one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.row_samples import cut_around_answer, spread


@given(st.integers(0, 50), st.integers(1, 20))
def test_where_all_rows_will_do_they_are_spread_evenly_over_the_split(total: int, count: int) -> None:
    rows = [{"id": str(number)} for number in range(total)]
    taken = [int(row["id"]) for row in spread(rows, count, lambda row: row)]
    assert taken == ([i * total // count for i in range(count)] if total > count else [*range(total)])


def test_the_row_after_one_that_will_not_do_takes_its_place() -> None:
    rows = [{"id": str(number)} for number in range(12)]
    taken = spread(rows, 3, lambda row: None if row["id"] in ("0", "1", "4", "5", "6", "7") else int(row["id"]))
    assert taken == [2, 8]


def test_a_row_that_fits_is_read_whole() -> None:
    row = Rendered([1, 2, 3, 4], [False, True, False, False])
    assert cut_around_answer(row, 4) == row


def test_of_a_long_prompt_its_beginning_and_what_leads_to_the_answer_are_read() -> None:
    row = Rendered(list(range(100)), [False] * 95 + [True] * 4 + [False])
    cut = cut_around_answer(row, 10)
    assert cut.ids == [0, *range(90, 99)]
    assert cut.loss_mask == [False] * 6 + [True] * 4


def test_of_a_long_answer_the_end_is_read_and_nothing_is_predicted_over_the_gap() -> None:
    cut = cut_around_answer(Rendered(list(range(100)), [False] + [True] * 99), 10)
    assert cut.ids == [0, *range(91, 100)]
    assert cut.loss_mask == [False, False] + [True] * 8


def test_virtual_tokens_stay_before_a_row_that_is_cut() -> None:
    row = Rendered([1, 50, 51, 52, *range(2, 40)], [False] * 40 + [True] * 2)
    assert cut_around_answer(row, 12, range(50, 53)).ids == [1, 50, 51, 52, *range(32, 40)]
