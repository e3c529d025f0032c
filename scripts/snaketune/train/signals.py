"""SIGINT and SIGTERM, kept until the loop is at a place where it can stop."""

from __future__ import annotations

import signal

from snaketune.errors import TrainingError

SAVED = "a checkpoint is saved"  # says of a training that it ended in order and can go on


class Interrupts:
    """While it is entered, a first signal is only remembered (`seen`); a second SIGINT interrupts at once.

    A second SIGTERM does not: one that is sent to a whole process group arrives from Snakemake as well.
    """

    def __init__(self) -> None:
        self.seen = 0

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: object) -> None:
        if self.seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.seen = self.seen or number


def interrupted(number: int, update: int) -> TrainingError:
    """What to raise once the checkpoint of `update` is written; number: the signal's."""
    return TrainingError(
        f"stopped by {signal.Signals(number).name} after update {update}; {SAVED}",
        fix="Run snakemake again: training goes on from there",
    )
