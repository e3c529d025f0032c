"""Unsloth: its MLX trainer on Apple silicon, its patched models under TRL's SFTTrainer on CUDA and on a CPU."""

from __future__ import annotations

import os
import sys

from snaketune.trainers import hf_arguments
from snaketune.trainers.description import Settings, TrainerDescription, TrainingPlan

BACKEND = "SNAKETUNE_UNSLOTH"
"""An environment variable, `mlx` or `torch`: which of its trainers to take, where the machine does not say it."""
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MLX_OPTIMIZERS = ("adamw", "adam", "sgd", "adafactor", "lion", "muon", "rmsprop", "adagrad")


def backend() -> str:
    """Which of Unsloth's trainers runs here."""
    return os.environ.get(BACKEND) or ("mlx" if sys.platform == "darwin" else "torch")


def _translate(plan: TrainingPlan) -> Settings:
    lora = hf_arguments.lora_arguments(plan)
    lora["target_modules"] = plan.target_modules or ALL_LINEAR
    del lora["task_type"]
    return _for_mlx(plan, lora) if backend() == "mlx" else _for_torch(plan, lora)


def _for_torch(plan: TrainingPlan, lora: Settings) -> Settings:
    arguments = hf_arguments.training_arguments(plan)
    checkpointing = arguments.pop("gradient_checkpointing")
    return {
        "backend": "torch",
        "model": {"max_seq_length": plan.longest},
        "lora": {**lora, "use_gradient_checkpointing": checkpointing},
        "training": {
            **arguments,
            "train_sampling_strategy": "sequential",
            "max_length": None,
            "disable_tqdm": True,
        },
        "early_stopping": hf_arguments.early_stopping(plan.config),
    }


def _for_mlx(plan: TrainingPlan, lora: Settings) -> Settings:
    config = plan.config
    every = plan.eval_every
    last_layers = {} if plan.layers is None else {"finetune_last_n_layers": len(plan.layers)}
    for peft_only in ("bias", "layers_to_transform"):
        del lora[peft_only]
    return {
        "backend": "mlx",
        "model": {"max_seq_length": plan.longest},
        "lora": {**lora, **last_layers, "use_gradient_checkpointing": config.gradient_checkpointing},
        "training": {
            "per_device_train_batch_size": config.batch_size,
            "per_device_eval_batch_size": config.batch_size,
            "gradient_accumulation_steps": config.gradient_accumulation_steps,
            "gradient_checkpointing": config.gradient_checkpointing,
            "max_steps": plan.steps,
            "warmup_steps": plan.warmup_steps,
            "learning_rate": config.learning_rate,
            "lr_scheduler_type": config.lr_scheduler,
            "optim": config.optimizer,
            "weight_decay": config.weight_decay,
            "max_grad_norm": config.max_grad_norm or 0.0,
            "seed": plan.seed,
            "logging_steps": 1,
            "eval_steps": every,
            "save_steps": every,
            "save_total_limit": config.save_total_limit,
            "load_best_model_at_end": True,
            "early_stopping_patience": config.early_stopping_patience or 0,
            "max_seq_length": plan.longest,
            "append_eos": False,
            "dataset_order": "sequential",
            "compile": sys.platform == "darwin",
            "report_grad_norm": True,
        },
    }


def _differences(plan: TrainingPlan) -> list[str]:
    if backend() != "mlx":
        return hf_arguments.differences(plan)
    found = ["its validation loss is a mean over batches, and it chooses its best checkpoint by that"]
    found.append(hf_arguments.OTHER_START)
    if plan.config.min_lr_ratio and plan.config.lr_scheduler != "constant":
        found.append("the learning rate ends at zero")
    if plan.config.max_grad_norm is None:
        found.append("gradients are clipped, each tensor's norm to 1")
    return found


TRAINER = TrainerDescription(
    name="unsloth",
    title="Unsloth",
    packages=("unsloth", "unsloth_zoo", "transformers", "peft", "trl", "torch", "mlx", "mlx-lm"),
    methods=("lora", "dora"),
    optimizers={name: name for name in (MLX_OPTIMIZERS if backend() == "mlx" else hf_arguments.OPTIMIZERS)},
    schedules=hf_arguments.SCHEDULES,
    translate=_translate,
    differences=_differences,
    resumes=True,
    early_stopping=True,
    min_delta=backend() != "mlx",
    clips=True,
)
