"""Trainers of the field: each is a process in an environment of its own, with a job and token ids in, an adapter out.

A trainer is a module beside this file (`trl`, `llama_factory`, `axolotl`, `unsloth`, `mlx_lm`) with a `TRAINER`, which
says what it can do and translates our settings into its own words, and a driver of the same name in `drivers/`, a
script that runs inside its environment. To add one: both, its pins in envs/trainers/, its name in schemas/train.yaml.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from snaketune.trainers.description import TrainerDescription

if TYPE_CHECKING:
    from snaketune.contracts.train import TrainingJob
    from snaketune.engines.interface import Trainer

BUILTIN = "builtin"
"""The value of train.trainer that means this project's own engines."""


def trainer_of(job: TrainingJob, builtin: Callable[[], Trainer]) -> Trainer:
    """What trains a job: one of our engines, which `builtin` gives, or what runs the process of the trainer it names.

    The latter is imported by its name, so that the digest of a training by one of our engines covers nothing of it;
    `environment.code_of` digests what a trainer of the field consists of.
    """
    if job.config.trainer == BUILTIN:
        return builtin()
    trainer: Trainer = importlib.import_module("snaketune.trainers.train")
    return trainer


def describe(name: str) -> TrainerDescription:
    """The description of a trainer by the name that the configuration has for it."""
    module = importlib.import_module(f"snaketune.trainers.{module_name(name)}")
    description: TrainerDescription = module.TRAINER
    return description


def module_name(name: str) -> str:
    """The name of a trainer's module: `llama-factory` is `llama_factory`."""
    return name.replace("-", "_")
