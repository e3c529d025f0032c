"""What a trainer of the field cannot do is refused when the settings are read, with the key and a way out."""

from __future__ import annotations

import pytest
import tiny_models
from snaketune.config import schema
from snaketune.config.sections import load
from snaketune.errors import ConfigError
from snaketune.run_definition import define_run
from snaketune.trainers import capabilities

CANNOT = [
    ("mlx-lm", {"optimizer": "lion"}, "train.optimizer"),
    ("trl", {"optimizer": "muon"}, "train.optimizer"),
    ("axolotl", {"method": "full"}, "train.method"),
    ("llama-factory", {"num_layers": 2}, "train.num_layers"),
    (
        "llama-factory",
        {"early_stopping_min_delta": 0.1, "early_stopping_patience": 3},
        "train.early_stopping_min_delta",
    ),
    ("unsloth", {"packing": True}, "train.packing"),
    ("trl", {"workers": 2}, "train.workers"),
]


def model():
    return load({"run": "polish", "model": {"base": "demo"}, "data": {"sources": [{"path": "x.jsonl"}]}}).model


@pytest.mark.parametrize(("trainer", "changed", "where"), CANNOT)
def test_a_setting_that_a_trainer_cannot_do_is_refused_with_its_key(trainer, changed, where):
    with pytest.raises(ConfigError) as caught:
        capabilities.check_settings(tiny_models.train_config(trainer=trainer, **changed), model())
    assert caught.value.where == where
    assert caught.value.fix
    capabilities.check_settings(tiny_models.train_config(trainer="builtin", **changed), model())


@pytest.mark.parametrize("trainer", ["unsloth", "llama-factory", "axolotl", "trl", "mlx-lm"])
def test_every_trainer_takes_the_defaults_of_the_configuration(trainer):
    capabilities.check_settings(tiny_models.train_config(trainer=trainer), model())


def test_an_experiment_with_a_trainer_that_cannot_do_it_is_named_when_the_run_is_defined():
    given = {
        "run": "zulu",
        "data": {"sources": [{"path": "data/demo/train.jsonl"}]},
        "experiments": {"plain": {"trainer": "mlx-lm"}, "alone": {"trainer": "trl", "optimizer": "lion"}},
    }
    with pytest.raises(ConfigError, match="TRL cannot do optimizer: lion") as caught:
        define_run(schema.complete(given))
    assert caught.value.where == "experiments.alone.optimizer"


def test_fewer_rows_than_a_batch_are_refused_for_mlx_lm_alone():
    from snaketune.trainers import describe

    plan = _plan(rows=3, batch_size=4)
    with pytest.raises(ConfigError, match="whole batches of 4"):
        capabilities.check_rows(describe("mlx-lm"), plan, num_valid=2)
    capabilities.check_rows(describe("trl"), plan, num_valid=2)


def _plan(*, rows, **changed):
    from snaketune.trainers.description import TrainingPlan

    return TrainingPlan(
        config=tiny_models.train_config(**changed),
        steps=8,
        warmup_steps=2,
        rows=rows,
        longest=20,
        num_layers=3,
        dtype="auto",
        seed=4,
    )
