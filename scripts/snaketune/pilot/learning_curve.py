"""What more training and more data would bring, from short trainings.

More training: the pilot's own training loss falls about as a power of the updates, and the power of its second half is
carried on. More data: pilots on nested parts of the rows, all of the same number of updates, show what each doubling
of the rows has brought. Both are extrapolations, and are given with a range or in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from snaketune.contracts.pilot import LearningCurve, LearningCurvePoint

MIN_LOSSES = 12
MOST_POWER = 2.0
MIN_GAIN_PER_DOUBLING = 0.02  # a doubling that lowers the loss by less than this share is not worth collecting rows for


def expected_loss(
    metrics: Sequence[dict[str, Any]], best: float | None, updates: int, full_updates: int
) -> dict[str, float] | None:
    """The full run's validation loss: {"validation_loss", "validation_loss_low", "validation_loss_high"}.

    best: the pilot's best validation loss after `updates`. The worst of the range is what the pilot has shown already;
    the best carries its second half's power, and two standard errors more, on to `full_updates`. None where the pilot
    is too short to have one.
    """
    losses = [(line["step"], line["loss"]) for line in metrics if isinstance(line.get("loss"), int | float)]
    second = [(u, value) for u, value in losses if u > updates / 2 and value > 0 and math.isfinite(value)]
    if best is None or not math.isfinite(best) or len(second) < MIN_LOSSES or full_updates <= updates:
        return None
    x, y = np.log(np.array(second)).T
    centred = x - x.mean()
    power = -float((centred * y).sum() / (centred**2).sum())
    rest = y - y.mean() + power * centred
    error = math.sqrt(float((rest**2).sum()) / (len(x) - 2) / float((centred**2).sum()))
    longer = full_updates / updates
    middle, most = (min(MOST_POWER, max(0.0, each)) for each in (power, power + 2 * error))
    return {
        "validation_loss": round(best * longer**-middle, 4),
        "validation_loss_low": round(best * longer**-most, 4),
        "validation_loss_high": round(best, 4),
    }


def subset_for_fraction(fraction: float, rows: int, updates: int | None, rows_per_update: int) -> tuple[int, int]:
    """(rows, updates) of the training on a share of the pilot's rows: as many updates as the pilot makes itself."""
    return max(1, round(fraction * rows)), updates or -(-rows // rows_per_update)


def assess(results: Sequence[tuple[int, float | None]]) -> LearningCurve:
    """Return whether more rows are likely to help, from (rows, best validation loss) of nested subsets."""
    known = sorted((rows, loss) for rows, loss in results if loss is not None and math.isfinite(loss))
    points = [LearningCurvePoint(rows=rows, validation_loss=loss) for rows, loss in known]
    if len(known) < 2 or known[-1][0] == known[-2][0]:
        message = "the learning curve needs two subsets of different size with a finite loss"
        return LearningCurve(points=points, per_doubling=None, more_data_helps="unclear", message=message)
    (few, before), (many, after) = known[-2:]
    per_doubling = (before - after) / math.log2(many / few)
    losses = f"{before:.3f} to {after:.3f}"
    message = f"each doubling of the rows lowered the validation loss by {per_doubling:.3f} (from {losses})"
    helps: Literal["likely", "unlikely", "unclear"]
    if per_doubling > MIN_GAIN_PER_DOUBLING * after:
        helps, message = "likely", f"{message}: more data is likely to help"
    elif per_doubling < -MIN_GAIN_PER_DOUBLING * after:
        helps, message = "unclear", f"more rows did not lower the loss ({losses}): the subsets are too small"
    else:
        helps, message = "unlikely", f"{message}: more data of this kind is unlikely to help much"
    return LearningCurve(points=points, per_doubling=round(per_doubling, 5), more_data_helps=helps, message=message)
