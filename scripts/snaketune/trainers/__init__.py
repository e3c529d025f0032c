"""Trainers of the field: each is a process in an environment of its own, with a job and token ids in, an adapter out.

A trainer is a module beside this file (`trl`, `llama_factory`, `axolotl`, `unsloth`, `mlx_lm`) with a `TRAINER`, which
says what it can do and translates our settings into its own words, and a driver of the same name in `drivers/`, a
script that runs inside its environment. To add one: both, its pins in envs/trainers/, its name in schemas/train.yaml.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from snaketune.trainers.description import TrainerDescription

if TYPE_CHECKING:
    from snaketune.engines.interface import Trainer

BUILTIN = "builtin"
"""The value of train.trainer that means this project's own engines."""


def process_trainer() -> Trainer:
    """What runs the process of the trainer that a job names.

    Imported by its name, so that the digest of a training by one of our engines covers nothing of it;
    `environment.code_of` digests what a trainer of the field consists of.
    """
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
