"""LLaMA-Factory: transformers' Trainer behind one YAML file."""

from __future__ import annotations

from snaketune.trainers import hf_arguments
from snaketune.trainers.description import Settings, TrainerDescription, TrainingPlan


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


TRAINER = TrainerDescription(
    name="llama-factory",
    title="LLaMA-Factory",
    packages=("llamafactory", "transformers", "peft", "trl", "torch", "accelerate", "datasets"),
    methods=("lora", "dora"),
    optimizers=hf_arguments.OPTIMIZERS,
    schedules=hf_arguments.SCHEDULES,
    translate=_translate,
    differences=_differences,
    resumes=True,
    early_stopping=True,
    min_delta=False,
    clips=True,
    num_layers=False,
)
