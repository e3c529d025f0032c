"""Early stopping: the best evaluation, and patience."""

from hypothesis import given
from hypothesis import strategies as st
from snaketune.train.checkpoints import EarlyStopping

LOSSES = st.lists(st.floats(0, 10), min_size=1, max_size=30)


@given(LOSSES)
def test_best_step_is_the_first_with_the_lowest_loss(losses):
    stopping = EarlyStopping(patience=None)
    for step, loss in enumerate(losses):
        stopping.update(step, loss)
    assert stopping.best_loss == min(losses)
    assert stopping.best_step == losses.index(min(losses))
    assert not stopping.should_stop


@given(LOSSES, st.integers(1, 5))
def test_patience_is_how_many_evaluations_in_a_row_may_be_without_a_gain(losses, patience):
    stopping = EarlyStopping(patience=patience)
    without = 0
    for step, loss in enumerate(losses):
        without = 0 if loss < stopping.best_loss else without + 1
        stopping.update(step, loss)
        assert stopping.should_stop == (without >= patience)


def test_gain_below_min_delta_is_kept_but_does_not_renew_patience():
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    for step, loss in enumerate([3.0, 2.95, 2.92]):
        stopping.update(step, loss)
    assert stopping.best_loss == 2.92
    assert stopping.should_stop


def test_small_gains_that_add_up_to_min_delta_renew_patience():
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    for step, loss in enumerate([3.0, 2.95, 2.89, 2.85]):
        stopping.update(step, loss)
    assert not stopping.should_stop


def test_loss_that_is_not_a_number_is_never_the_best():
    stopping = EarlyStopping(patience=2)
    stopping.update(0, 2.0)
    assert not stopping.update(1, float("nan"))
    assert stopping.best_loss == 2.0
