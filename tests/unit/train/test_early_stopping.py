"""The best validation, and patience."""

from hypothesis import given
from hypothesis import strategies as st
from snaketune.train.early_stopping import Best

LOSSES = st.lists(st.floats(0, 10), min_size=1, max_size=30)


@given(LOSSES)
def test_the_best_is_the_first_of_the_lowest(losses):
    best = Best(patience=None)
    for update, loss in enumerate(losses):
        best.offer(update, loss)
    assert best.loss == min(losses)
    assert best.update == losses.index(min(losses))
    assert not best.exhausted


@given(LOSSES, st.integers(1, 5))
def test_it_is_exhausted_after_so_many_validations_in_a_row_without_a_gain(losses, patience):
    best = Best(patience=patience)
    without = 0
    for update, loss in enumerate(losses):
        without = 0 if loss < best.loss else without + 1
        best.offer(update, loss)
        assert best.exhausted == (without >= patience)


def test_a_gain_below_the_least_that_counts_is_kept_but_does_not_renew_patience():
    best = Best(patience=2, minimum_gain=0.1)
    for update, loss in enumerate([3.0, 2.95, 2.92]):
        best.offer(update, loss)
    assert best.loss == 2.92
    assert best.exhausted


def test_small_gains_add_up_to_one_that_counts():
    best = Best(patience=2, minimum_gain=0.1)
    for update, loss in enumerate([3.0, 2.95, 2.89, 2.85]):
        best.offer(update, loss)
    assert not best.exhausted


def test_a_loss_that_is_not_a_number_is_never_the_best():
    best = Best(patience=2)
    best.offer(0, 2.0)
    assert not best.offer(1, float("nan"))
    assert best.loss == 2.0
