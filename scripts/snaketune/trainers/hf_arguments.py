"""Our settings in the words of transformers' TrainingArguments and PEFT's LoraConfig.

TRL, LLaMA-Factory, Axolotl and Unsloth off Apple silicon all train with transformers' Trainer, whose arguments they
take under the same names.
"""

from __future__ import annotations

from snaketune.config.sections import TrainConfig
from snaketune.trainers.description import Settings, TrainingPlan

OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adam": "adamw_torch",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "rmsprop": "rmsprop",
    "adagrad": "adagrad",
}
OTHER_START = "a new adapter begins with other random numbers, as with another seed"
MICRO_BATCHES_ALIKE = "each micro-batch of a step counts alike, however many tokens it has"
SCHEDULES = ("cosine", "linear", "constant")


def training_arguments(plan: TrainingPlan) -> Settings:
    """The arguments of the training itself.

    Rows come in our order, so they are not shuffled again. Clipping by a norm of 0 is transformers' word for none.
    """
    config = plan.config
    return {
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "gradient_checkpointing": config.gradient_checkpointing,
        "max_steps": plan.steps,
        "optim": OPTIMIZERS[config.optimizer],
        "learning_rate": config.learning_rate,
        "weight_decay": 0.0 if config.optimizer in ("adam", "sgd") else config.weight_decay,
        "max_grad_norm": config.max_grad_norm or 0.0,
        "warmup_steps": plan.warmup_steps,
        **_schedule(plan),
        **_cadence(plan),
        "seed": plan.seed,
        "data_seed": plan.seed,
        "bf16": False,
        "fp16": False,
        "report_to": "none",
    }


def _schedule(plan: TrainingPlan) -> Settings:
    """The learning rate's course: the one schedule of transformers that is linear and ends above zero."""
    if plan.config.lr_scheduler == "constant":
        return {"lr_scheduler_type": "constant_with_warmup"}
    course = {
        "num_stable_steps": 0,
        "num_decay_steps": max(1, plan.steps - plan.warmup_steps),
        "decay_type": plan.config.lr_scheduler,
        "min_lr_ratio": plan.config.min_lr_ratio,
    }
    return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": course}


def _cadence(plan: TrainingPlan) -> Settings:
    """When it logs, validates and saves; the best checkpoint is the one with the lowest validation loss of its own."""
    every = plan.eval_every
    return {
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": every,
        "eval_on_start": True,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": plan.config.save_total_limit,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }


def lora_arguments(plan: TrainingPlan) -> Settings:
    """PEFT's LoraConfig."""
    config = plan.config
    return {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "use_dora": config.method == "dora",
        "target_modules": plan.target_modules or "all-linear",
        "layers_to_transform": plan.layers,
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }


def early_stopping(config: TrainConfig) -> Settings | None:
    """The arguments of transformers' EarlyStoppingCallback, None where training never stops early."""
    if config.early_stopping_patience is None:
        return None
    return {
        "early_stopping_patience": config.early_stopping_patience,
        "early_stopping_threshold": config.early_stopping_min_delta,
    }


def differences(plan: TrainingPlan) -> list[str]:
    """What transformers' Trainer does otherwise than the built-in trainer."""
    found = [
        "its validation loss is a mean over batches, not over tokens, and it chooses its best checkpoint by that",
        "each learning rate comes one step later than here",
        OTHER_START,
    ]
    if plan.warmup_steps and plan.config.lr_scheduler != "constant" and plan.config.min_lr_ratio:
        found.append("the warm-up begins at the last learning rate instead of zero")
    if plan.config.optimizer == "adam":
        found.append("adam is AdamW without weight decay")
    if plan.config.max_tokens_per_micro_batch:
        found.append("max_tokens_per_micro_batch does not bound a micro-batch")
    return found
