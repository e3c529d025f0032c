"""Axolotl: transformers' Trainer behind one YAML file."""

from __future__ import annotations

import dataclasses

from snaketune.trainers import hf_arguments, trl
from snaketune.trainers.description import Settings, TrainingPlan

KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
"""Switched on by itself without dropout, and made for CUDA alone."""
SAME = (
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "max_steps",
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "warmup_steps",
    "lr_scheduler_kwargs",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "seed",
    "bf16",
    "fp16",
)
"""Arguments of transformers that Axolotl has under the same name."""


def _translate(plan: TrainingPlan) -> Settings:
    config, theirs = plan.config, hf_arguments.training_arguments(plan)
    targets: Settings = (
        {"lora_target_modules": plan.target_modules} if plan.target_modules else {"lora_target_linear": True}
    )
    patience = config.early_stopping_patience
    return {
        "adapter": "lora",
        "lora_r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "peft_use_rslora": config.rslora,
        "peft_use_dora": config.method == "dora",
        **targets,
        **({"peft_layers_to_transform": plan.layers} if plan.layers else {}),
        **dict.fromkeys(KERNELS, False),
        "sequence_len": plan.longest,
        "sample_packing": False,
        "pad_to_sequence_len": False,
        "shuffle_merged_datasets": False,
        "curriculum_sampling": True,
        "micro_batch_size": config.batch_size,
        "eval_batch_size": config.batch_size,
        "num_epochs": 1,
        "optimizer": theirs["optim"],
        "lr_scheduler": theirs["lr_scheduler_type"],
        "tf32": False,
        **({"early_stopping_patience": patience} if patience else {}),
        **{name: theirs[name] for name in SAME if name in theirs},
    }


def _differences(plan: TrainingPlan) -> list[str]:
    found = hf_arguments.differences(plan)
    if plan.config.gradient_accumulation_steps > 1:
        found.append(hf_arguments.MICRO_BATCHES_ALIKE)  # its logged losses are such means, to seven digits
    return found


TRAINER = dataclasses.replace(
    trl.TRAINER,
    name="axolotl",
    title="Axolotl",
    packages=("axolotl", *trl.TRAINER.packages),
    translate=_translate,
    differences=_differences,
    min_delta=False,
)
