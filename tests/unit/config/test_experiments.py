"""Experiments and grids, expanded while the Snakefile is parsed."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.config import schema as configuration
from snaketune.config.experiments import Experiment, differences, expand
from snaketune.config.sections import load
from snaketune.errors import ConfigError

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "rank": st.integers(1, 512),
    "learning_rate": st.floats(0, 10),
    "target_modules": st.one_of(
        st.just("all-linear"), st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4)
    ),
    "base": st.text(min_size=1, max_size=80),
    "gradient_checkpointing": st.booleans(),
}
GRIDS = st.dictionaries(st.sampled_from(list(VALUES)), st.none(), max_size=3).flatmap(
    lambda keys: st.fixed_dictionaries({key: st.lists(VALUES[key], min_size=1, max_size=3) for key in keys})
)


def expanded(**given_keys: Any) -> dict[str, Experiment]:
    return expand(load({"run": "a", **given_keys}))


def refused(**given_keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        expanded(**given_keys)
    return str(caught.value)


def test_without_experiments_there_is_one_called_main_with_the_sections_as_they_are():
    found = expanded(train={"rank": 3})
    assert list(found) == ["main"]
    assert found["main"].train.rank == 3
    assert found["main"].model.base == "demo"


@given(grid=GRIDS)
def test_every_point_of_a_grid_has_a_name_of_its_own_that_can_name_a_folder(grid):
    found = expanded(grid=grid)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", name) for name in found)
    points = [configuration.canonical(one.settings) for one in found.values()]
    assert len(set(points)) == len(points)


@given(grid=GRIDS)
def test_adding_values_to_a_grid_keeps_the_names_and_settings_that_were_there(grid):
    before = expanded(grid=grid)
    if not grid:
        return
    key = next(iter(grid))
    more = {
        "rank": 600,
        "learning_rate": 0.123,
        "target_modules": ["o_proj"],
        "base": "x/y",
        "gradient_checkpointing": False,
    }
    after = expanded(grid={**grid, key: [*grid[key], more[key]]})
    assert {name: after[name] for name in before} == before


def test_a_grid_crosses_its_lists_and_stands_beside_the_named_experiments():
    found = expanded(grid={"rank": [8, 16], "learning_rate": ["1e-4", 2e-4, 3e-4]}, experiments={"plain": {}})
    assert list(found) == [
        "plain",
        "rank-8_learning_rate-0.0001",
        "rank-8_learning_rate-0.0002",
        "rank-8_learning_rate-0.0003",
        "rank-16_learning_rate-0.0001",
        "rank-16_learning_rate-0.0002",
        "rank-16_learning_rate-0.0003",
    ]


def test_a_value_that_is_listed_twice_in_a_grid_is_trained_once():
    assert len(expanded(grid={"learning_rate": [1e-4, "1e-4", 0.0001]})) == 1


def test_an_override_takes_keys_of_train_and_of_model():
    found = expanded(train={"rank": 4}, experiments={"other": {"base": "some/model", "learning_rate": "2e-5"}})
    assert found["other"].model.base == "some/model"
    assert found["other"].train.learning_rate == 2e-5
    assert found["other"].train.rank == 4


def test_an_override_of_epochs_is_not_silenced_by_max_steps():
    found = expanded(train={"max_steps": 100}, experiments={"long": {"epochs": 5}})
    assert found["long"].train.max_steps is None


def test_a_pinned_commit_does_not_follow_another_base():
    found = expanded(model={"base": "a/b", "revision": "abc"}, experiments={"other": {"base": "c/d"}, "same": {}})
    assert found["other"].model.revision == "main"
    assert found["same"].model.revision == "abc"


@pytest.mark.parametrize(
    ("given_keys", "said"),
    [
        ({"experiments": {"x": {"rnk": 3}}}, 'experiments.x.rnk: there is no such key; did you mean "rank"?'),
        ({"experiments": {"x": {"rank": 0}}}, "experiments.x.rank: 0 is not allowed"),
        ({"grid": {"rank": [8, "many"]}}, 'grid.rank: "many" is not allowed'),
        ({"experiments": {"a b": {}}}, "cannot be an experiment's name"),
        ({"experiments": {"x" * 70: {}}}, "cannot be an experiment's name"),
        ({"experiments": {"a": {}, "A": {"rank": 3}}}, "two experiments are called"),
        ({"experiments": {"a": {"rank": 3}, "b": {"rank": 3}}}, "have the same settings"),
        ({"grid": {"rank": []}}, "grid.rank: [] is not allowed"),
    ],
)
def test_a_mistake_is_reported_with_the_key(given_keys, said):
    assert said in refused(**given_keys)


def test_a_thousand_experiments_expand_in_well_under_a_second():
    values = list(range(1, 11))
    config = load({"run": "a", "grid": {"rank": values, "alpha": values, "epochs": values}})
    started = time.process_time()
    assert len(expand(config)) == 1000
    assert time.process_time() - started < 0.5


def test_differences_name_only_what_is_not_the_same_everywhere():
    found = expanded(experiments={"a": {"rank": 8}, "b": {"rank": 16, "base": "x/y"}})
    settings = {name: one.settings for name, one in found.items()}
    assert differences(settings) == {
        "a": {"rank": 8, "base": "demo"},
        "b": {"rank": 16, "base": "x/y"},
    }


def test_a_list_of_seeds_trains_every_named_experiment_once_for_each_and_nothing_else():
    found = expanded(experiments={"wide": {"rank": 48}, "plain": None}, grid={"seed": [7, 3]})
    assert [(name, one.seed, one.train.rank) for name, one in found.items()] == [
        ("wide_seed-7", 7, 48),
        ("wide_seed-3", 3, 48),
        ("plain_seed-7", 7, found["plain_seed-7"].train.rank),
        ("plain_seed-3", 3, found["plain_seed-7"].train.rank),
    ]


def test_seeds_cross_the_other_lists_of_a_grid_and_an_experiment_with_a_seed_of_its_own_keeps_it():
    found = expanded(experiments={"fixed": {"seed": 9}}, grid={"rank": [2, 4], "seed": [1, 2]})
    assert {name: one.seed for name, one in found.items()} == {
        "fixed": 9,
        "rank-2_seed-1": 1,
        "rank-2_seed-2": 2,
        "rank-4_seed-1": 1,
        "rank-4_seed-2": 2,
    }


def test_an_experiment_without_a_seed_has_that_of_the_run():
    assert expanded(seed=12, experiments={"a": {"rank": 2}, "b": {}})["b"].seed == 12


def test_a_seed_that_is_no_number_is_refused_where_it_stands():
    assert "grid.seed" in refused(grid={"seed": ["one"]})
    assert "experiments.a.seed" in refused(experiments={"a": {"seed": -1}})


@pytest.mark.parametrize(
    ("given_keys", "said"),
    [
        ({"train": {"method": "prompt", "rank": 8}}, "train.rank: rank means nothing to the method prompt"),
        ({"experiments": {"a": {"method": "prompt", "num_layers": 2}}}, "experiments.a.num_layers: num_layers means"),
        (
            {"experiments": {"a": {"num_virtual_tokens": 2}}},
            "num_virtual_tokens means nothing",
        ),
        (
            {"train": {"method": "prompt", "rank": 8}, "grid": {"num_virtual_tokens": [4, 8]}},
            "train.rank: rank means nothing to the method prompt",
        ),
        (
            {"train": {"num_virtual_tokens": 8}, "grid": {"method": ["lora", "dora"]}},
            "train.num_virtual_tokens: num_virtual_tokens means nothing to the method dora or lora",
        ),
        ({"train": {"method": "prompt", "train_on_prompts": True}}, "prompt tuning cannot train on prompts"),
        ({"train": {"fsdp": True}}, "there is one worker"),
        ({"train": {"fsdp": True, "workers": 2, "method": "full"}}, "no weight is frozen"),
    ],
)
def test_settings_that_a_method_does_not_have_are_refused(given_keys, said):
    assert said in refused(**given_keys)


def test_prompt_tuning_beside_others_leaves_their_settings_alone():
    own = {"rank": 8, "num_layers": 2, "num_virtual_tokens": 20}
    found = expanded(train=own, experiments={"lora": {}, "prompt": {"method": "prompt"}})
    assert found["prompt"].train.virtual_tokens == 20
    assert found["lora"].train.virtual_tokens == 0
