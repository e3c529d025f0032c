"""Refuses what a trainer cannot do: most of it when the settings are read, the rest before its process starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from snaketune.config.sections import ModelConfig, TrainConfig
from snaketune.errors import ConfigError, TrainingError
from snaketune.trainers import BUILTIN, describe
from snaketune.trainers.description import TrainerDescription, TrainingPlan


class Refusal(NamedTuple):
    """What a trainer cannot do: the key, what it is set to, and what can be done."""

    key: str
    what: str
    fix: str


def check_settings(train: TrainConfig, model: ModelConfig, where: str = "train") -> None:
    """Raise ConfigError for the first setting that the experiment's trainer cannot do; where: the key it stands under.

    What it merely does otherwise is not refused: summary.json lists it.
    """
    if train.trainer == BUILTIN:
        return
    description = describe(train.trainer)
    for refusal in _refusals(description, train, model):
        raise ConfigError(
            f"{description.title} cannot do {refusal.what}",
            where=f"{where}.{refusal.key}",
            why=f"{where}.trainer is {train.trainer}, and leaving the setting out would train something else",
            fix=f"{refusal.fix}, or set trainer: builtin",
        )


def check_rows(description: TrainerDescription, plan: TrainingPlan, num_valid: int) -> None:
    """Raise for rows that the trainer cannot train on; it is asked once the rows are known."""
    if num_valid == 0:
        raise TrainingError(
            "there is no row to validate on",
            where="data.split.valid",
            why="The losses of all trainers are compared on these rows",
            fix="Raise data.split.valid or add rows",
        )
    if description.name == "mlx-lm" and plan.rows < plan.config.batch_size:
        raise ConfigError(
            f"{description.title} makes whole batches of {plan.config.batch_size} rows only, and there are {plan.rows}",
            where="train.batch_size",
            fix=f"Set it to {plan.rows} or less",
        )


def _refusals(description: TrainerDescription, train: TrainConfig, model: ModelConfig) -> Iterator[Refusal]:
    if train.method not in description.methods:
        yield Refusal("method", f"method: {train.method}", f"Use {' or '.join(description.methods)}")
    if train.optimizer not in description.optimizers:
        known = ", ".join(description.optimizers)
        yield Refusal("optimizer", f"optimizer: {train.optimizer}", f"Use one of {known}")
    if train.lr_scheduler not in description.schedules:
        known = ", ".join(description.schedules)
        yield Refusal("lr_scheduler", f"lr_scheduler: {train.lr_scheduler}", f"Use one of {known}")
    if train.num_layers is not None and not description.num_layers:
        yield Refusal("num_layers", "num_layers", "Leave it at null")
    if train.rslora and not description.rslora:
        yield Refusal("rslora", "rslora", "Set alpha to rank times the scale that you want")
    if train.early_stopping_min_delta and train.early_stopping_patience and not description.min_delta:
        yield Refusal("early_stopping_min_delta", "early_stopping_min_delta", "Set it to 0")
    if train.packing:
        yield Refusal("packing", "packing in which no row sees another", "Set it to false")
    if train.workers > 1:
        yield Refusal("workers", "several workers here", "Set it to 1")
    if model.quantize is not None and not description.quantized_bases:
        yield Refusal("quantize", "a base that MLX has quantized", "Set it to null")
