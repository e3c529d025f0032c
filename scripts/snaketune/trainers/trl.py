"""TRL's SFTTrainer with PEFT: the plainest way to train with transformers."""

from __future__ import annotations

from snaketune.trainers import hf_arguments
from snaketune.trainers.description import Settings, TrainerDescription, TrainingPlan


def _translate(plan: TrainingPlan) -> Settings:
    return {
        "training": {
            **hf_arguments.training_arguments(plan),
            "train_sampling_strategy": "sequential",
            "max_length": None,
            "disable_tqdm": True,
        },
        "lora": hf_arguments.lora_arguments(plan),
        "early_stopping": hf_arguments.early_stopping(plan.config),
    }


TRAINER = TrainerDescription(
    name="trl",
    title="TRL",
    packages=("trl", "transformers", "peft", "torch", "accelerate", "datasets"),
    methods=("lora", "dora"),
    optimizers=hf_arguments.OPTIMIZERS,
    schedules=hf_arguments.SCHEDULES,
    translate=_translate,
    differences=hf_arguments.differences,
    resumes=True,
    early_stopping=True,
    clips=True,
)
