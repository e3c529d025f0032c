"""SIGINT and SIGTERM, deferred until the training loop can save a checkpoint."""

from __future__ import annotations

import signal

from snaketune.errors import TrainingError

CHECKPOINT_SAVED = "a checkpoint is saved"  # in the message of a training that ended in order and can be resumed


class DeferredSignals:
    """While entered, a first signal is only recorded (`received`, 0 for none); a second SIGINT interrupts at once.

    A second SIGTERM does not: one that is sent to a whole process group arrives from Snakemake as well.
    """

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> DeferredSignals:
        self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: object) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number


def interruption_error(number: int, step: int) -> TrainingError:
    """What to raise once the checkpoint of `step` is written; number: the signal's."""
    return TrainingError(
        f"stopped by {signal.Signals(number).name} after step {step}; {CHECKPOINT_SAVED}",
        fix="Run snakemake again: training resumes from there",
    )
