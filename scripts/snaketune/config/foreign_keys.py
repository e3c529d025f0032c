"""Names of settings in earlier versions of snaketune and in other tools, and the key of ours that each stands for.

The table serves the "did you mean" of an unknown key. There are no aliases: a foreign name is never accepted.
"""

from __future__ import annotations

RENAMED = {
    "model.template": "model.chat_template",
    "data.sources.target": "data.sources.target_path",
    "data.too_long": "data.on_too_long",
    "data.leaks": "data.on_leakage",
    "pilot.updates": "pilot.max_steps",
    "train.targets": "train.target_modules",
    "train.layers": "train.num_layers",
    "train.prompts": "train.train_on_prompts",
    "train.updates": "train.max_steps",
    "train.accumulation": "train.gradient_accumulation_steps",
    "train.clip": "train.max_grad_norm",
    "train.schedule": "train.lr_scheduler",
    "train.final_share": "train.min_lr_ratio",
    "train.warmup": "train.warmup_steps",
    "train.validate_every": "train.eval_steps",
    "train.patience": "train.early_stopping_patience",
    "train.minimum_gain": "train.early_stopping_min_delta",
    "train.keep_checkpoints": "train.save_total_limit",
    "train.max_positions": "train.max_tokens_per_micro_batch",
    "train.max_skipped": "train.max_nonfinite_steps",
    "train.track": "train.report_to",
    "select.by": "select.metric",
    "package.licence": "package.license",
    "package.min_gain_kept": "package.min_gain_retained",
    "package.fidelity.prompts": "package.fidelity.num_prompts",
    "evaluate.artefacts": "evaluate.models",
    "evaluate.prompted": "evaluate.few_shot",
    "evaluate.few_shot.examples": "evaluate.few_shot.num_examples",
    "evaluate.targets": "evaluate.thresholds",
    "evaluate.on_missed": "evaluate.on_missed_threshold",
}
"""By the path that a key had in an earlier version of snaketune."""

NAMES = {
    # a run and its seed
    "run": "output_dir run_name experiment_name adapter_path save_path output_path",
    "seed": "random_seed random_state data_seed",
    "compare_with": "baseline previous",
    "threads": "num_threads num_workers dataset_num_proc preprocessing_num_workers dataloader_num_workers",
    # the base
    "model": "base_model_config model_args",
    "model.base": (
        "base_model model_name model_name_or_path model_id model_path pretrained_model_name_or_path hf_model"
    ),
    "model.revision": "base_model_revision model_revision revision_of_model",
    "model.dtype": "torch_dtype bf16 fp16 tf32 bfloat16 float16 pure_bf16 precision mixed_precision",
    "model.chat_template": ("template chat_template_jinja chat_template_path prompt_template tokenizer_chat_template"),
    "model.quantize": (
        "load_in_4bit load_in_8bit quantization_bit quantization bnb_4bit_quant_type q_bits quantization_config"
    ),
    # the rows
    "data": "dataset_args data_args",
    "data.sources": (
        "datasets dataset dataset_name dataset_id dataset_path data_path data_files train_file train_dataset"
    ),
    "data.sources.path": "file filename file_name local_path ds_path",
    "data.sources.hub": "repo repo_id hf_dataset hf_hub_url",
    "data.sources.format": "ds_type formatting file_format",
    "data.sources.fields": "columns column_mapping field_mapping",
    "data.sources.fields.prompt": "field_instruction prompt_feature prompt_column question_column query",
    "data.sources.fields.response": "field_output completion_feature completion_column answer_column",
    "data.sources.fields.messages": "field_messages chat_feature conversations",
    "data.sources.fields.text": "text_feature text_column dataset_text_field",
    "data.sources.fields.system": "field_system system_column",
    "data.sources.turn_fields": "message_property_mappings",
    "data.sources.roles": "tags",
    "data.sources.train_turns": "mask_history roles_to_train",
    "data.sources.limit": "max_samples num_samples max_train_samples",
    "data.system": "default_system system_prompt system_message default_system_message default_system_prompt",
    "data.split": "splits split_ratio",
    "data.split.valid": "val_set_size val_size valid_size validation_size validation_split eval_ratio validation",
    "data.split.test": "test_size test_split test_ratio",
    "data.max_length": (
        "sequence_len cutoff_len max_seq_length max_seq_len model_max_length max_source_length context_length"
    ),
    "data.on_too_long": "truncation truncation_mode excess_length_strategy truncate",
    "data.near_duplicates": "dedup deduplicate dedupe dataset_exact_deduplication",
    "data.max_rejected": "max_errors",
    # the training
    "train": "training training_args finetune fine_tune lora lora_parameters lora_config peft_config",
    "train.method": "adapter finetuning_type fine_tune_type train_type tuner use_dora peft_use_dora peft_type",
    "train.rank": "lora_r lora_rank r lora_dim",
    "train.alpha": "lora_alpha lora_scale scale",
    "train.rslora": "use_rslora peft_use_rslora lora_use_rslora",
    "train.dropout": "lora_dropout",
    "train.target_modules": "lora_target_modules lora_target lora_target_linear lora_modules keys",
    "train.num_layers": (
        "lora_layers num_lora_layers lora_layers_to_transform layers_to_transform freeze_trainable_layers"
    ),
    "train.train_on_prompts": (
        "train_on_inputs train_on_input train_on_prompt mask_prompt mask_inputs completion_only_loss "
        "assistant_only_loss train_on_responses_only"
    ),
    "train.epochs": "num_train_epochs num_epochs n_epochs max_epochs epoch",
    "train.max_steps": "iters iterations num_steps total_steps max_iters steps num_iters max_train_steps",
    "train.batch_size": "micro_batch_size per_device_train_batch_size per_device_batch_size train_batch_size",
    "train.gradient_accumulation_steps": (
        "grad_accumulation_steps grad_accum gradient_accumulation accumulate_grad_batches"
    ),
    "train.packing": "sample_packing neat_packing pack_sequences",
    "train.gradient_checkpointing": (
        "grad_checkpoint use_gradient_checkpointing enable_activation_checkpointing activation_checkpointing "
        "disable_gradient_checkpointing"
    ),
    "train.optimizer": "optim optimizer_type optimizer_name optim_type",
    "train.learning_rate": "lr peak_lr learning_rate_peak max_lr init_lr",
    "train.weight_decay": "wd adam_weight_decay",
    "train.max_grad_norm": "gradient_clipping clip_grad_norm grad_clip gradient_clip_val max_norm",
    "train.lr_scheduler": "lr_scheduler_type lr_schedule scheduler lr_decay_style scheduler_type",
    "train.min_lr_ratio": "cosine_min_lr_ratio min_lr min_lr_rate lr_scheduler_min",
    "train.warmup_steps": "warmup_ratio num_warmup_steps warmup_iters lr_warmup_steps",
    "train.eval_steps": (
        "steps_per_eval evals_per_epoch eval_every val_steps validation_steps eval_interval val_interval eval_strategy "
        "save_steps save_every steps_per_save"
    ),
    "train.early_stopping_patience": "early_stopping early_stop_patience early_stopping_steps",
    "train.early_stopping_min_delta": "early_stopping_threshold min_delta",
    "train.save_total_limit": "max_checkpoints keep_last_n_checkpoints",
    "train.max_tokens_per_micro_batch": "max_tokens max_tokens_per_batch batch_tokens max_batch_tokens",
    "train.workers": "world_size num_processes nproc_per_node num_gpus devices",
    "train.hosts": "hostfile nodes",
    "train.report_to": "wandb_project use_wandb use_tensorboard use_swanlab logger tracker wandb_name",
    "experiments": "runs variants sweeps",
    "grid": "sweep hyperparameters search_space",
    "select.metric": "metric_for_best_model",
    # the files
    "package": "export export_args",
    "package.gguf": "quantization_method gguf_types export_gguf quantize_gguf outtype",
    "package.upload.repository": "hub_model_id push_to_hub push_to_hub_model_id hf_repo upload_repo repo_name",
    "package.upload.private": "hub_private_repo",
    # the scores
    "evaluate": "evaluation eval generation_config",
    "evaluate.max_rows": "max_eval_samples eval_samples num_test_samples test_batches",
    "evaluate.max_new_tokens": "max_gen_toks max_generation_length max_new_token generation_max_length",
    "evaluate.few_shot.num_examples": "num_fewshot fewshot n_shot few_shot_examples",
    "evaluate.generation.repetition_penalty": "repeat_penalty",
}

"""By our key, what transformers, TRL, PEFT, Axolotl, LLaMA-Factory, mlx-lm, unsloth or torchtune call it."""

FOREIGN = {name: ours for ours, names in NAMES.items() for name in names.split()}
_TRAIN_LAST = sorted(RENAMED.items(), key=lambda item: item[0].startswith("train."))
_RENAMED_ANYWHERE = {old.rpartition(".")[2]: new for old, new in _TRAIN_LAST}

VALUES = {
    "data.on_too_long": {"cut": "truncate", "truncation": "truncate", "skip": "drop", "discard": "drop"},
    "data.shingles": {"word": "words", "character": "characters", "char": "characters"},
    "train.method": {"qlora": "lora", "full_finetune": "full", "finetune": "full", "sft": "lora"},
    "train.optimizer": {"adamw_torch": "adamw", "adamw_8bit": "adamw", "paged_adamw_8bit": "adamw"},
    "train.lr_scheduler": {"constant_with_warmup": "constant", "cosine_decay": "cosine", "linear_schedule": "linear"},
    "model.dtype": {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32"},
}
"""By key, the values that people bring along."""


def our_key(section: str, name: str) -> str | None:
    """Return the key of ours that was called `name` in `section`, or is called so by another tool.

    Capitals and hyphens do not matter; list indices are left out of `section`, as in data.sources.
    """
    name = name.replace("-", "_").lower()
    return RENAMED.get(f"{section}.{name}") or FOREIGN.get(name) or _RENAMED_ANYWHERE.get(name)


def known_value(path: str, value: object) -> str | None:
    """Return what we call a value of the key at `path` that has another name elsewhere."""
    return VALUES.get(path, {}).get(value.lower()) if isinstance(value, str) else None
