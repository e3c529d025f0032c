"""Our settings in each trainer's own words: learning rate, layers, scale, and what is said to differ."""

from __future__ import annotations

import pytest
import tiny_models
from snaketune.trainers import describe
from snaketune.trainers.description import TrainingPlan

ALIKE = "each micro-batch of a step counts alike, however many tokens it has"
NAMES = ["unsloth", "llama-factory", "axolotl", "trl", "mlx-lm"]


def plan(**changed):
    rest = {name: changed.pop(name) for name in ("several_answers", "dtype") if name in changed}
    return TrainingPlan(
        config=tiny_models.train_config(**changed),
        steps=40,
        warmup_steps=6,
        rows=90,
        longest=77,
        num_layers=5,
        seed=9,
        **({"dtype": "auto"} | rest),
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_translation_is_json_and_depends_on_the_plan_alone(name):
    import json

    first, second = (json.dumps(describe(name).translate(plan())) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["trl", "llama-factory"])
def test_transformers_is_given_the_same_arguments_under_trl_and_llama_factory(name):
    translated = describe(name).translate(plan(batch_size=3, gradient_accumulation_steps=2, learning_rate=3e-4))
    arguments = translated.get("training", translated)
    assert (arguments["per_device_train_batch_size"], arguments["gradient_accumulation_steps"]) == (3, 2)
    assert (arguments["max_steps"], arguments["warmup_steps"], arguments["seed"]) == (40, 6, 9)
    assert arguments["lr_scheduler_kwargs"]["num_decay_steps"] == 34
    assert arguments["lr_scheduler_kwargs"]["num_stable_steps"] == 0  # LLaMA-Factory would make it a third


def test_the_last_layers_are_named_by_their_indices_for_peft_and_counted_for_mlx_lm():
    assert describe("trl").translate(plan(num_layers=2))["lora"]["layers_to_transform"] == [3, 4]
    assert describe("axolotl").translate(plan(num_layers=2))["peft_layers_to_transform"] == [3, 4]
    assert describe("mlx-lm").translate(plan(num_layers=2))["num_layers"] == 2
    assert describe("mlx-lm").translate(plan(num_layers=5))["num_layers"] == -1


def test_mlx_lm_gets_the_scale_that_rslora_means():
    assert describe("mlx-lm").translate(plan(rank=16, alpha=32.0))["lora_parameters"]["scale"] == 2
    assert describe("mlx-lm").translate(plan(rank=16, alpha=32.0, rslora=True))["lora_parameters"]["scale"] == 8


def test_mlx_lm_counts_iterations_of_which_several_make_a_step():
    translated = describe("mlx-lm").translate(plan(gradient_accumulation_steps=4, eval_steps=10))
    assert (translated["iters"], translated["steps_per_eval"], translated["steps_per_report"]) == (160, 40, 40)


def test_axolotl_is_told_to_keep_the_order_and_to_leave_its_cuda_kernels_off():
    translated = describe("axolotl").translate(plan())
    assert translated["curriculum_sampling"] is True
    assert translated["shuffle_merged_datasets"] is False
    assert not any(translated[name] for name in translated if name.endswith("_kernel"))


def test_what_a_trainer_does_otherwise_depends_on_what_is_asked_of_it():
    def differences(**changed):
        return " | ".join(describe("mlx-lm").differences(plan(**changed)))

    assert "not clipped" in differences(max_grad_norm=1.0)
    assert "not clipped" not in differences(max_grad_norm=None)
    assert "of 12 rows with several answers" in differences(several_answers=12)
    assert "counts alike" in differences(gradient_accumulation_steps=2)
    assert "counts alike" not in differences(gradient_accumulation_steps=1)


def test_unsloth_on_mlx_says_that_its_learning_rate_ends_at_zero(monkeypatch):
    monkeypatch.setenv("SNAKETUNE_UNSLOTH", "mlx")
    assert describe("unsloth").translate(plan())["backend"] == "mlx"
    assert any("ends at zero" in sentence for sentence in describe("unsloth").differences(plan(min_lr_ratio=0.1)))
    monkeypatch.setenv("SNAKETUNE_UNSLOTH", "torch")
    assert describe("unsloth").translate(plan())["training"]["train_sampling_strategy"] == "sequential"


@pytest.mark.parametrize(("name", "averages"), [("axolotl", True), ("trl", False), ("llama-factory", False)])
def test_who_averages_the_micro_batches_of_a_step_says_so_where_there_are_several(name, averages):
    assert (ALIKE in describe(name).differences(plan(gradient_accumulation_steps=4))) == averages
    assert ALIKE not in describe(name).differences(plan(gradient_accumulation_steps=1))


@pytest.mark.parametrize("name", NAMES)
def test_every_trainer_says_that_its_adapter_begins_otherwise(name):
    assert any("other random numbers" in sentence for sentence in describe(name).differences(plan()))
