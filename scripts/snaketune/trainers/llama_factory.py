"""LLaMA-Factory: transformers' Trainer behind one YAML file."""

from __future__ import annotations

import dataclasses

from snaketune.trainers import hf_arguments, trl
from snaketune.trainers.description import Settings, TrainingPlan


def _translate(plan: TrainingPlan) -> Settings:
    arguments = hf_arguments.training_arguments(plan)
    checkpointing = arguments.pop("gradient_checkpointing")
    config = plan.config
    return {
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "use_dora": config.method == "dora",
        "lora_target": ",".join(plan.target_modules) if plan.target_modules else "all",
        "template": "empty",
        "cutoff_len": plan.longest,
        "disable_shuffling": True,
        "disable_gradient_checkpointing": not checkpointing,
        "early_stopping_steps": config.early_stopping_patience,
        "infer_dtype": plan.dtype if plan.dtype != "auto" else "float32",
        "disable_tqdm": True,
        **arguments,
    }


def _differences(plan: TrainingPlan) -> list[str]:
    return [*hf_arguments.differences(plan), "rows are padded to a multiple of eight"]


TRAINER = dataclasses.replace(
    trl.TRAINER,
    name="llama-factory",
    title="LLaMA-Factory",
    packages=("llamafactory", *trl.TRAINER.packages),
    translate=_translate,
    differences=_differences,
    min_delta=False,
    num_layers=False,
)
