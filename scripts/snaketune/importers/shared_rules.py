"""What several tools have from transformers' Trainer: optimizers, schedules, and keys that change no result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from snaketune.importers.draft import Draft, Taken, Theirs
from snaketune.importers.key_rules import Convert, KeyRule, for_keys, number, refused, taken, unused, whole
from snaketune.importers.places import count_rows

OPTIMIZERS: Mapping[object, object] = {
    **dict.fromkeys(
        "adamw adamw_torch adamw_hf adamw_torch_fused adamw_torch_8bit adamw_torch_4bit adamw_torch_fp8 adamw_bnb_8bit "
        "adamw_8bit paged_adamw paged_adamw_8bit paged_adamw_32bit adamw_apex_fused".split(),
        "adamw",
    ),
    **dict.fromkeys(["lion", "lion_8bit", "lion_32bit", "lion_pytorch", "paged_lion_8bit", "paged_lion_32bit"], "lion"),
    "adafactor": "adafactor",
    "adagrad": "adagrad",
    "rmsprop": "rmsprop",
    "sgd": "sgd",
    "muon": "muon",
    "adam": "adam",
}
SCHEDULES: Mapping[object, object] = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
PREQUANTIZED = re.compile(r"(?i)(^|[-_/])(gptq|awq|aqlm|bnb|hqq|eetq|nf4|int4|exl2|gguf)([-_.]|$)")
STILL_THE_SAME_ROWS = "only speed and memory depend on it"
MANY_PROCESSES = (
    "it spreads one training over several GPUs; here train.workers does, and what it computes is the same but for the "
    "number of rows in a step, which is batch_size x gradient_accumulation_steps here for all workers together"
)
SHARE_OF_STEPS = (
    "below 1 it is a share of all steps here, to the nearest whole step; transformers rounds up, Axolotl down"
)

SPEED_AND_MEMORY = for_keys(
    "bf16 fp16 tf32 pure_bf16 bfloat16 float16 bf16_full_eval fp16_full_eval torch_dtype",
    unused(
        "model.dtype: auto takes the model's own number format on an accelerator, and float32 on a Linux CPU; "
        "results differ by rounding"
    ),
) | for_keys(
    "flash_attn flash_attention sdp_attention xformers_attention attn_implementation eager_attention flex_attention "
    "s2_attention flash_attn_cross_entropy flash_attn_rms_norm flash_attn_fuse_mlp flash_optimum enable_liger_kernel "
    "use_liger_kernel use_unsloth use_unsloth_gc torch_compile torch_compile_backend torch_compile_mode "
    "gradient_checkpointing_kwargs "
    "use_reentrant_gc group_by_length pad_to_sequence_len pad_to_multiple_of low_cpu_mem_usage device_map "
    "dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor preprocessing_num_workers "
    "dataset_processes dataset_num_proc dataset_keep_in_memory preprocessing_batch_size "
    "use_cpu no_cuda auto_find_batch_size activation_offloading torch_empty_cache_steps",
    unused(STILL_THE_SAME_ROWS),
)
MULTI_GPU = for_keys(
    "deepspeed fsdp fsdp_config fsdp_version fsdp_transformer_layer_cls_to_wrap ddp ddp_timeout ddp_backend "
    "ddp_bucket_cap_mb ddp_broadcast_buffers ddp_find_unused_parameters local_rank use_ray ray_num_workers "
    "ray_run_name ray_storage_path placement_strategy resources_per_worker dp_shard_size dp_replicate_size "
    "tensor_parallel_size context_parallel_size sequence_parallel_degree expert_parallel_size accelerator_config",
    unused(MANY_PROCESSES),
)
BOOKKEEPING = for_keys(
    "output_dir overwrite_output_dir run_name hub_model_id hub_strategy hub_token push_to_hub push_dataset_to_hub "
    "hub_private_repo hf_use_auth_token logging_steps logging_dir logging_strategy logging_first_step log_level "
    "disable_tqdm plot_loss save_steps save_strategy save_total_limit save_only_model save_safetensors "
    "save_on_each_node "
    "saves_per_epoch save_first_step resume_from_checkpoint auto_resume_from_checkpoints overwrite_cache cache_dir "
    "dataset_prepared_path do_train do_eval per_device_eval_batch_size eval_batch_size eval_table_size "
    "eval_accumulation_steps include_num_input_tokens_seen include_tokens_per_second debug strict "
    "remove_unused_columns ignore_data_skip print_param_status wandb_entity wandb_watch wandb_name wandb_run_id "
    "wandb_log_model wandb_mode use_mlflow mlflow_experiment_name use_comet use_swanlab swanlab_project "
    "swanlab_run_name swanlab_mode",
    unused("where files go, what is logged and how often a checkpoint is saved; the best adapter is kept here"),
)


def common_rules(optimizer: str, schedule: str) -> dict[str, KeyRule]:
    """Return the rules of all keys that these tools share; optimizer, schedule: what the tool calls them."""
    return {**SPEED_AND_MEMORY, **MULTI_GPU, **BOOKKEEPING, **_optimizer_rules(optimizer, schedule)}


def _optimizer_rules(name: str, schedule: str) -> dict[str, KeyRule]:
    exact = "its state is kept in full precision here"
    return {
        name: taken("train.optimizer", exact, OPTIMIZERS),
        schedule: taken("train.lr_scheduler", "the warm-up stands before any of them here", SCHEDULES),
        "learning_rate": taken("train.learning_rate", convert=take_number("train.learning_rate")),
        "weight_decay": taken(
            "train.weight_decay", "on matrices only, as there", convert=take_number("train.weight_decay")
        ),
        "max_grad_norm": taken("train.max_grad_norm", convert=_clip),
        "gradient_accumulation_steps": taken("train.gradient_accumulation_steps"),
        "warmup_ratio": taken("train.warmup_steps", SHARE_OF_STEPS, convert=_warmup_ratio),
        "warmup_steps": taken("train.warmup_steps", convert=_warmup_steps),
        "seed": taken("seed"),
        "data_seed": unused("one seed settles everything here"),
        "max_steps": taken("train.max_steps", "-1 means that the epochs decide", convert=_max_steps),
        "dataloader_drop_last": unused("steps go on into the next epoch here, so none within a training is smaller"),
        "neftune_noise_alpha": refused("noise on the embeddings during training", "Train without it", (0,)),
        "label_smoothing_factor": refused("it changes the loss", "Train without it", (0,)),
        "adam_beta1": refused("the optimizer's first moment; here it is 0.9", "Train with 0.9", (0.9,)),
        "adam_beta2": refused("the optimizer's second moment; here it is 0.999", "Train with 0.999", (0.999,)),
        "adam_epsilon": refused("the optimizer's epsilon; here it is 1e-8", "Train with 1e-8", (1e-8, "1e-8")),
        "optim_args": refused("the optimizer's own settings", "Train with its usual ones", ({},)),
        "lr_scheduler_kwargs": refused("it changes the course of the learning rate", "Train without it", ({},)),
        "loraplus_lr_ratio": refused("LoRA+: the two matrices learn at different rates", "Train without it"),
        "loraplus_lr_embedding": refused("LoRA+ of embeddings", "Train without it"),
    }


def take_number(ours: str, note: str = "") -> Convert:
    """Return a conversion that takes a number over, also one that YAML reads as text, such as 2e-5."""

    def convert(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
        draft.take(key, value, ours, whole(value), note)

    return convert


def _clip(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    off = not number(value)
    draft.take(key, value, "train.max_grad_norm", None if off else whole(value), "0 is null here" if off else "")


def _warmup_ratio(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    if theirs.get("warmup_steps"):
        draft.leave_out(key, value, "warmup_steps is given too, and wins there as well")
        return
    draft.take(key, value, "train.warmup_steps", whole(value), SHARE_OF_STEPS)


def _warmup_steps(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    draft.take(key, value, "train.warmup_steps", whole(value))


def _max_steps(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    if number(value) <= 0:
        draft.leave_out(key, value, "the epochs decide")
    else:
        draft.take(key, value, "train.max_steps", whole(value), "it overrides the epochs, as there")


def dora(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Note that DoRA is a method of its own here; the key that names the method sets it."""
    if value:
        draft.taken.append(Taken(key=key, theirs=value, ours="train.method", value="dora"))
    else:
        draft.leave_out(key, value, "plain LoRA is trained")


def take_base(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Take the base model over; one that is quantized in a format of PyTorch's is refused."""
    base = str(value)
    if PREQUANTIZED.search(base) and not Path(base).expanduser().is_dir():
        draft.refuse(
            key,
            value,
            "this base is quantized in a format that only PyTorch reads",
            "Name the model that it was made from; model.quantize quantizes it here",
            is_final=True,
        )
        return
    draft.take(key, value, "model.base", base)


def take_targets(draft: Draft, key: str, value: object, names: list[str], example: str) -> None:
    """Take over the layers that get an adapter; example: names as that tool writes them."""
    if names == ["all-linear"]:
        draft.take(key, value, "train.target_modules", "all-linear")
    elif all(name.isidentifier() for name in names):
        draft.take(key, value, "train.target_modules", names)
    else:
        draft.refuse(key, value, "it chooses layers by a pattern", f"Name the layers, such as {example}")


def report_to(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Take over where values are sent to, of the places that ours knows."""
    names = [str(one) for one in value] if isinstance(value, list) else str(value).split(",")
    known = next((name.strip() for name in names if name.strip() in ("wandb", "tensorboard")), None)
    if known:
        draft.take(key, value, "train.report_to", known)
    else:
        draft.leave_out(key, value, "metrics.jsonl holds every value, and the report shows the curves")


def quantize(draft: Draft, key: str, value: object, bits: int) -> None:
    """Take a 4- or 8-bit base over."""
    kind = "NF4 or INT8 of bitsandbytes there, affine groups of 64 here: other rounding errors, of the same size"
    draft.take(key, value, "model.quantize", {"bits": bits, "group_size": 64, "mode": "affine"}, kind)


def num_layers(base: str) -> int | None:
    """Return how many layers a base has, where its configuration lies on this machine."""
    from snaketune.files import read_json

    path = Path(base).expanduser() / "config.json"
    found = read_json(path).get("num_hidden_layers") if path.is_file() else None
    return found if isinstance(found, int) else None


def take_number_of_rows(draft: Draft, key: str, rows: float, at_most: object = None) -> None:
    """Take a number of validation rows over as a share; at_most: rows read of each source."""
    total = count_rows(draft, at_most)
    if total:
        share = round(rows / total, 6)
        draft.take(key, whole(rows), "data.split.valid", share, f"{whole(rows)} of {total} rows")
    else:
        draft.refuse(
            key,
            whole(rows),
            "a number of rows to validate on; shares are given here, and how many rows there are is not known",
            "Set data.split.valid to its share of your rows, and import without this key",
        )


TRANSFORMERS_STEPS = (
    (
        "learning rate of a step",
        "each comes one step later: the first step of a warm-up has the rate 0 and trains nothing",
        "the first step trains here, and the last has the rate 0; the fewer steps, the more it matters",
    ),
    (
        "last step of an epoch",
        "it has the rows that are left",
        "steps go on into the next epoch here, so only the last one of all may have fewer rows",
    ),
)
"""What transformers' Trainer does with every training, and no key of ours can do: what, theirs, ours."""


def finish_training(draft: Draft, theirs: Theirs) -> None:
    """Write out what these tools do without being told, where ours would do otherwise."""
    for key, words, note in TRANSFORMERS_STEPS:
        draft.write_out(key, words, "", note=note)
    if draft.get("train.lr_scheduler") != "constant" and not draft.is_set("train.min_lr_ratio"):
        draft.write_out(
            "min_lr_ratio", "the learning rate ends at 0", "train.min_lr_ratio", 0, "ours ends at 0.05 of the peak"
        )
    if not draft.is_set("train.early_stopping_patience"):
        draft.write_out(
            "early_stopping_patience",
            "no early stopping",
            "train.early_stopping_patience",
            None,
            "all steps are made, as there; the adapter of the best validation is the one that is kept",
        )
    if "weight_decay" not in theirs or theirs["weight_decay"] is None:
        draft.write_out("weight_decay", "0", "train.weight_decay", 0, "ours is 0.01")


def finish_data(draft: Draft, valid: float | None) -> None:
    """Write out the splits and the removal of duplicates. valid: the share that they validate on, None for none."""
    sources = draft.get("data.sources")
    splits = {one.get("split") for one in sources if isinstance(one, dict)} if isinstance(sources, list) else set()
    share = 0.0 if "valid" in splits else (valid or 0.05)
    test = 0.0 if "test" in splits else 0.1
    if share + test >= 1:
        share, test = 0.45, 0.1
    draft.set("data.split", {"train": round(1 - share - test, 6), "valid": share, "test": test})
    if not valid and "valid" not in splits:
        draft.write_out(
            "validation",
            "none: the last step's weights are the result",
            "data.split.valid",
            share,
            "the best adapter is chosen on rows that were not trained on",
        )
    if "test" not in splits:
        draft.write_out(
            "test rows",
            "none: every other row is trained on",
            "data.split.test",
            test,
            "without rows that were never trained on, nothing could be said of the result",
        )
    draft.write_out(
        "near duplicates", "kept", "data.near_duplicates", False, "exact copies of a row are always removed here"
    )
