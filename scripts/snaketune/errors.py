"""What a person can mend, as exceptions: raised where the mistake is known, shown in one place (`step.py`).

A `UserError` carries the four things a person needs at midnight: what is wrong, where, why it matters, what to do.
Anything else that escapes a step is a defect of ours and keeps its traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the input, the settings or the machine that its owner can mend.

    what: one sentence, without a final full stop; where: `file:line` or a configuration key such as
    `train.learning_rate`; why: what would go wrong if it were ignored; fix: what to do now.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        sentences = [head, self.why, self.fix]
        return " ".join(s if s.endswith((".", "!", "?", ":", "\n")) else s + "." for s in sentences if s)


class ConfigError(UserError):
    """A key, a type or a value of the configuration."""


class DataError(UserError):
    """A data file, its rows or their splits."""


class ModelError(UserError):
    """A base model: missing, unreadable, refused by its hub, or of a kind that cannot be used."""


class ResourceError(UserError):
    """The machine: memory, disk, a missing program, no network."""


class TrainingError(UserError):
    """A training that cannot go on: non-finite values, a broken checkpoint, nothing to train on."""


class PackageError(UserError):
    """A product that is not the model that was trained: a failed conversion or fidelity gate."""


class EvaluationError(UserError):
    """An evaluation that cannot be made or may not be compared."""


class BusyError(UserError):
    """Another process is writing to the same place."""


class NoGoError(UserError):
    """The pilot's decision: a criterion was not met, and the configuration says to stop then."""
