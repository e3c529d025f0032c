"""mlx-lm's own `lora`: the plain baseline on Apple silicon, and on a Linux CPU with MLX's CPU build."""

from __future__ import annotations

from snaketune.trainers import hf_arguments
from snaketune.trainers.description import Settings, TrainerDescription, TrainingPlan

REPORT_STEPS = 10  # its own default; each report waits for the step
NEVER = 1_000_000_000
OPTIMIZERS = {name: name for name in ("adamw", "adam", "sgd", "adafactor", "muon")}
ROOM = 33  # tokens: it pads to a multiple of 32 and one more


def _translate(plan: TrainingPlan) -> Settings:
    config = plan.config
    accumulation = config.gradient_accumulation_steps
    return {
        "data": "token ids",
        "seed": plan.seed,
        "num_layers": -1 if plan.layers is None else len(plan.layers),
        "fine_tune_type": config.method,
        "lora_parameters": {"rank": config.rank, "scale": config.lora_scale, "dropout": config.dropout},
        "target_modules": plan.target_modules,
        "batch_size": config.batch_size,
        "iters": plan.steps * accumulation,
        "val_batches": -1,
        "steps_per_report": REPORT_STEPS * accumulation,
        "steps_per_eval": plan.eval_every * accumulation,
        "save_every": NEVER,
        "max_seq_length": plan.longest + ROOM,
        "grad_checkpoint": config.gradient_checkpointing,
        "grad_accumulation_steps": accumulation,
        "optimizer": config.optimizer,
        "optimizer_config": {config.optimizer: _optimizer_arguments(plan)},
        "learning_rate": config.learning_rate,
        "lr_schedule": _schedule(plan),
        "resume_adapter_file": None,
        "report_to": None,
    }


def _optimizer_arguments(plan: TrainingPlan) -> Settings:
    """What its optimizer is made with beside the learning rate."""
    decay: Settings = {"weight_decay": plan.config.weight_decay}
    found: dict[str, Settings] = {
        "adamw": {**decay, "bias_correction": True},
        "adam": {"bias_correction": True},
        "sgd": {"momentum": 0.9},
        "adafactor": {**decay, "scale_parameter": False, "relative_step": False},
        "muon": decay,
    }
    return found[plan.config.optimizer]


def _schedule(plan: TrainingPlan) -> Settings:
    config = plan.config
    peak, last = config.learning_rate, config.learning_rate * config.min_lr_ratio
    decay = max(1, plan.steps - plan.warmup_steps)
    course: dict[str, tuple[str, list[float]]] = {
        "cosine": ("cosine_decay", [peak, decay, last]),
        "linear": ("linear_schedule", [peak, last, decay]),
        "constant": ("linear_schedule", [peak, peak, decay]),
    }
    name, arguments = course[config.lr_scheduler]
    return {"name": name, "arguments": arguments, "warmup": plan.warmup_steps}


def _differences(plan: TrainingPlan) -> list[str]:
    config = plan.config
    found = [
        "rows are sorted by length and batches drawn in an order of its own, the same batches in every epoch",
        "it trains one padding token after each row",
        hf_arguments.OTHER_START,
        "it keeps its last weights, not its best",
        "its validation loss counts the padding tokens too, and leaves out what does not fill a last batch",
    ]
    if config.max_grad_norm is not None:
        found.append("gradients are not clipped")
    if config.gradient_accumulation_steps > 1:
        found.append(hf_arguments.MICRO_BATCHES_ALIKE)
    if config.early_stopping_patience is not None:
        found.append("it never stops early")
    if plan.several_answers:
        found.append(f"of {plan.several_answers} rows with several answers it trains the last one alone")
    return found


TRAINER = TrainerDescription(
    name="mlx-lm",
    title="mlx-lm's lora",
    packages=("mlx-lm", "mlx", "transformers"),
    methods=("lora", "dora"),
    optimizers=OPTIMIZERS,
    schedules=("cosine", "linear", "constant"),
    translate=_translate,
    differences=_differences,
    resumes=False,
    early_stopping=False,
    clips=False,
    quantized_bases=True,
)
