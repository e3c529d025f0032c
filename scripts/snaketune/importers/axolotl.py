"""Axolotl's YAML: the table of its keys, and what several of them say together."""

from __future__ import annotations

from snaketune.importers import axolotl_data
from snaketune.importers.draft import Draft, Theirs
from snaketune.importers.key_rules import KeyRule, apply, first_given, for_keys, number, refused, taken, unused, whole
from snaketune.importers.shared_rules import (
    common_rules,
    dora,
    finish_data,
    finish_training,
    num_layers,
    quantize,
    report_to,
    take_base,
)

TOOL = "Axolotl"
HARMLESS_PLUGINS = ("cut_cross_entropy", "liger", "kernels")
OTHER_OBJECTIVE = "another objective than learning the answers of the rows"
ONLY_ANSWERS = "Keep training that in Axolotl; for the answers alone, give rows with a prompt and a response"


def _adapter(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    if value not in ("lora", "qlora"):
        draft.refuse(key, value, "another kind of adapter than LoRA", "Use lora or qlora", is_final=True)
        return
    dora = bool(theirs.get("peft_use_dora"))
    draft.take(key, value, "train.method", "dora" if dora else "lora", "QLoRA is LoRA with model.quantize here")
    if value == "qlora" and not theirs.get("load_in_8bit"):
        quantize(draft, "load_in_4bit", theirs.get("load_in_4bit", "by qlora"), 4)


def _in_4bit(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    if not value:
        draft.leave_out(key, value, "the base is trained on as it is")
    elif theirs.get("adapter") != "qlora":  # which has seen to it
        quantize(draft, key, value, 4)


def _in_8bit(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    if value and theirs.get("adapter"):
        quantize(draft, key, value, 8)
    else:
        draft.leave_out(key, value, "the base is trained on as it is")


def _modules(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    if theirs.get("lora_target_linear"):
        draft.leave_out(key, value, "lora_target_linear: true takes all of them")
    elif isinstance(value, list) and all(isinstance(one, str) and one.isidentifier() for one in value):
        draft.take(key, value, "train.target_modules", value)
    else:
        draft.refuse(
            key,
            value,
            "it chooses layers by a pattern, which as a rule keeps parts of a model that sees images untrained",
            "Name the layers: train.target_modules takes short names such as [q_proj, v_proj], or all-linear",
        )


def _linear(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    if value:
        draft.take(key, value, "train.target_modules", "all-linear")
    else:
        draft.leave_out(key, value, "lora_target_modules names the layers")


def _layers(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    chosen = sorted(int(str(one)) for one in value) if isinstance(value, list) else []
    total = num_layers(str(theirs.get("base_model")))
    if total and chosen == list(range(total - len(chosen), total)):
        draft.take(key, value, "train.num_layers", len(chosen), f"the last {len(chosen)} of {total}")
    else:
        draft.refuse(
            key,
            value,
            "it trains certain layers; here only the last n of them can be chosen"
            + ("" if total else ", and how many this base has is not known on this machine"),
            "If they are the last n, set train.num_layers: n yourself, and import without this key",
        )


def _packing(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    draft.take(key, value, "train.packing", bool(value))
    if value:
        draft.write_out(
            "micro_batch_size with sample_packing",
            f"sequences of {theirs.get('sequence_len', 512)} tokens, each filled with as many rows as fit",
            "",
            note="batch_size counts rows here, so a step sees fewer of them and there are more steps: multiply "
            "train.gradient_accumulation_steps by how many of your rows fit into one sequence (tokens.json has their "
            "lengths) to make steps of the same size",
        )


def _checkpointing(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    note = "" if isinstance(value, bool) else "nothing is moved to other memory here"
    draft.take(key, value, "train.gradient_checkpointing", bool(value), note)


def _batch_size(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    micro = int(number(theirs.get("micro_batch_size") or 1))
    steps = max(1, int(number(value)) // micro)
    if theirs.get("gradient_accumulation_steps"):
        draft.leave_out(key, value, "gradient_accumulation_steps says it")
    else:
        draft.take(key, value, "train.gradient_accumulation_steps", steps, f"{value} rows in micro-batches of {micro}")


def _evaluations(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    if not number(value):
        draft.leave_out(key, value, "no validation there; see the list of defaults")
        return
    epochs = number(theirs.get("num_epochs") or 1)
    share = 1 / (number(value) * epochs)
    if theirs.get("max_steps"):
        draft.leave_out(key, value, "max_steps sets the length, so an epoch is no measure; train.eval_steps does")
        return
    every = min(0.5, round(share, 4))
    draft.take(key, value, "train.eval_steps", every, "a share of all steps: so many validations in each epoch")


def _eval_steps(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    if theirs.get("evals_per_epoch"):
        draft.leave_out(key, value, "evals_per_epoch is given too, and wins")
    else:
        draft.take(key, value, "train.eval_steps", whole(value))


def _plugins(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    names = [str(one) for one in value] if isinstance(value, list) else [str(value)]
    others = [name for name in names if not any(f".{plain}." in f".{name}." for plain in HARMLESS_PLUGINS)]
    if others:
        draft.refuse(key, others, "what these plugins do to the training is not known here", "Train without them")
    else:
        draft.leave_out(key, value, "faster kernels of the same operations")


def _wandb(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    report_to(draft, key, "wandb" if value and theirs.get("use_wandb", True) else "none", theirs)


def _other_objective(name: str) -> KeyRule:
    return refused(name, ONLY_ANSWERS, is_final=True)


KERNELS = (
    "lora_mlp_kernel lora_qkv_kernel lora_o_kernel lora_embedding_kernel use_kernels use_scattermoe use_sonicmoe "
    "fused_attn_kernel experts_implementation tiled_mlp liger_rms_norm liger_glu_activation liger_layer_norm "
    "liger_rope liger_fused_linear_cross_entropy liger_cross_entropy liger_rms_norm_gated cut_cross_entropy "
    "chunked_cross_entropy flex_attn_compile_kwargs"
)
TABLE: dict[str, KeyRule] = {
    **common_rules("optimizer", "lr_scheduler"),
    **for_keys(KERNELS, unused("faster kernels of the same operations")),
    **for_keys(
        "model_type tokenizer_type tokenizer_use_fast tokenizer_legacy is_llama_derived_model is_mistral_derived_model "
        "is_falcon_derived_model base_model_ignore_patterns gptq_groupsize gptq_model_v1 gptq_disable_exllama "
        "tokenizer_use_mistral_common lora_fan_in_fan_out",
        unused("the files of the base say it"),
    ),
    **for_keys(
        "loss_watchdog_threshold loss_watchdog_patience",
        unused("it ends a training that has gone wrong; here train.max_nonfinite_steps and the pilot do"),
    ),
    **for_keys(
        "shuffle_merged_datasets eval_sample_packing sample_packing_eff_est sample_packing_seq_len_multiplier "
        "total_num_tokens max_packed_sequence_len sample_packing_group_size sample_packing_bin_size "
        "skip_prepare_dataset multipack_real_batches",
        unused("the order of rows comes from the seed here, and packing never lets one row see another"),
    ),
    **for_keys(
        "val_set_seed use_tensorboard telemetry use_otel_metrics otel_metrics_host otel_metrics_port test_value "
        "trackio_project_name trackio_run_name trackio_space_id swanlab_experiment_name swanlab_description",
        unused("no part of the result"),
    ),
    "base_model": taken("model.base", convert=take_base),
    "revision_of_model": taken("model.revision"),
    "base_model_config": unused("the files of the base say it"),
    "tokenizer_config": refused("another tokenizer than the base's own", "Put it into the base's folder"),
    "sequence_len": taken("data.max_length"),
    "excess_length_strategy": taken("data.on_too_long", convert=axolotl_data.take_too_long),
    "micro_batch_size": taken("train.batch_size"),
    "batch_size": taken("train.gradient_accumulation_steps", convert=_batch_size),
    "num_epochs": taken("train.epochs"),
    "adapter": taken("train.method", convert=_adapter),
    "lora_r": taken("train.rank"),
    "lora_alpha": taken("train.alpha"),
    "lora_dropout": taken("train.dropout"),
    "lora_target_linear": taken("train.target_modules", convert=_linear),
    "lora_target_modules": taken("train.target_modules", convert=_modules),
    "peft_use_rslora": taken("train.rslora"),
    "peft_use_dora": taken("train.method", "dora", convert=dora),
    "lora_layers_to_transform": taken("train.num_layers", "where they are the last n", convert=_layers),
    "peft_layers_to_transform": taken("train.num_layers", "where they are the last n", convert=_layers),
    "load_in_4bit": taken("model.quantize", convert=_in_4bit),
    "load_in_8bit": taken("model.quantize", convert=_in_8bit),
    "sample_packing": taken("train.packing", convert=_packing),
    "gradient_checkpointing": taken("train.gradient_checkpointing", convert=_checkpointing),
    "cosine_min_lr_ratio": taken("train.min_lr_ratio"),
    "train_on_inputs": taken("train.train_on_prompts"),
    "early_stopping_patience": taken("train.early_stopping_patience", "validations without a gain, as there"),
    "val_set_size": taken("data.split.valid", convert=axolotl_data.take_validation_share),
    "evals_per_epoch": taken("train.eval_steps", convert=_evaluations),
    "eval_steps": taken("train.eval_steps", convert=_eval_steps),
    "eval_strategy": unused("train.eval_steps says when to validate"),
    "evaluation_strategy": unused("train.eval_steps says when to validate"),
    "datasets": taken("data.sources", convert=axolotl_data.take_datasets),
    "test_datasets": taken("data.sources", "with split: valid", convert=axolotl_data.take_validation_sets),
    "chat_template": taken("model.chat_template", convert=axolotl_data.take_template),
    "chat_template_jinja": taken("model.chat_template", convert=axolotl_data.take_jinja),
    "default_system_message": taken("data.system"),
    "dataset_exact_deduplication": unused("exact copies of a row are always removed here"),
    "special_tokens": refused(
        "the tokens that begin and end an answer; a pad token alone is of no effect",
        "",
        convert=axolotl_data.take_special_tokens,
    ),
    "eot_tokens": unused("the token that ends an answer in the chat template is always trained here"),
    "wandb_project": taken("train.report_to", convert=_wandb),
    "use_wandb": unused("wandb_project says it"),
    "plugins": KeyRule(
        fate="refused", note="what a plugin does; liger, cut_cross_entropy and kernels have no effect", convert=_plugins
    ),
    "trust_remote_code": unused("code of a model's repository is never run here; a base that needs it is refused"),
    "rl": _other_objective(OTHER_OBJECTIVE),
    **for_keys(
        "reward_model process_reward_model rl_beta kto_desirable_weight orpo_alpha trl ebft diffusion num_labels "
        "center_rewards_coefficient",
        _other_objective(OTHER_OBJECTIVE),
    ),
    "pretraining_dataset": refused(
        "a stream of texts", "Name the texts as a data set of type completion", is_final=True
    ),
    "processor_type": refused("a model that reads images or sound", "Train a text model", is_final=True),
    "gptq": refused("a base that is quantized in GPTQ's format", "Name the model it was made from", is_final=True),
    "lora_modules_to_save": refused(
        "whole embeddings or heads are trained beside the adapter, for new tokens",
        "Train without them, or method: full",
    ),
    "lora_target_parameters": refused("adapters on the weights of experts", "Train without them"),
    "lora_rank_pattern": refused("ranks that differ by layer", "Train with one rank"),
    "lora_alpha_pattern": refused("strengths that differ by layer", "Train with one alpha"),
    "peft": refused("further settings of PEFT, such as LoftQ", "Train without them", ({},)),
    "peft_init_lora_weights": refused("how the adapter begins", "Train without it", (True,)),
    "lora_model_dir": refused("the training goes on from an adapter", "Fuse that adapter into the base first"),
    "unfrozen_parameters": refused("only these weights of the model are trained", "Use method: lora or full"),
    "tokens": refused("new tokens in the vocabulary", "Add them to the base first"),
    "added_tokens_overrides": refused("renamed tokens in the vocabulary", "Change the base first"),
    "model_config": refused("changes in the base's configuration", "Change config.json in a local copy of the base"),
    "overrides_of_model_config": refused("changes in the base's configuration", "Change config.json in a local copy"),
    "overrides_of_model_kwargs": refused("changes in how the base is loaded", "Train without them"),
    "resize_token_embeddings_to_32x": refused("a padded vocabulary", "Train without it"),
    "embeddings_skip_upcast": unused("no part of the result but rounding"),
    "qat": refused("training with quantization in mind", "Train without it; the GGUF files are measured here"),
    "fp8": refused("training in 8-bit floating point", "Train without it"),
    "quantize_moe_experts": unused("model.quantize takes the experts too"),
    **for_keys(
        "relora_prune_ratio relora_cpu_offload jagged_restart_steps jagged_restart_warmup_steps "
        "jagged_restart_anneal_steps lisa_step_interval lisa_layers_attribute fp8_enable_fsdp_float8_all_gather "
        "eval_max_new_tokens eval_causal_lm_metrics do_causal_lm_eval swanlab_log_completions swanlab_workspace "
        "swanlab_log_model swanlab_completion_log_interval swanlab_completion_max_buffer "
        "experimental_skip_move_to_device bnb_config_kwargs",
        unused("belongs to a key that says whether it is used, to memory or to what is logged"),
    ),
    "model_quantization_config": refused("a base in 4-bit floating point is unpacked", "Name the 16-bit base"),
    "model_quantization_config_kwargs": unused("model_quantization_config says it"),
    "use_eaft": refused("another loss", "Train without it"),
    "reinit_weights": refused("the base's weights are thrown away", "Train without it", is_final=True),
    "relora": refused("ReLoRA: the adapter is merged again and again", "Train with a larger rank"),
    "lisa_n_layers": refused("LISA: other layers at each step", "Train without it"),
    "group_lr": refused("rates that differ by layer", "Train with one rate"),
    "lr_groups": refused("rates that differ by layer", "Train with one rate"),
    "embedding_lr": refused("a rate of its own for embeddings", "Train with one rate"),
    "lr_quadratic_warmup": refused("a curved warm-up", "Train without it"),
    "cosine_constant_lr_ratio": refused(
        "a rate that stays at its end for the last steps", "Train without it", (0, 1.0)
    ),
    "eta_min": refused("the optimizer's lowest rate", "Set train.min_lr_ratio to its share of learning_rate"),
    "curriculum_sampling": refused("rows in the order of the file", "Train without it"),
    "sample_packing_sequentially": refused("rows in the order of the file", "Train without it"),
    "min_sample_len": refused("shorter rows are left out", "Set data.min_characters", (0,)),
    "streaming": refused("rows that are read while training", "Name the data set without it"),
}


def import_config(theirs: Theirs, draft: Draft) -> None:
    """Fill the draft from the keys of an Axolotl configuration."""
    apply(TABLE, theirs, draft)
    _defaults(theirs, draft)
    finish_training(draft, theirs)
    valid = draft.get("data.split.valid") if draft.is_set("data.split.valid") else None
    finish_data(draft, valid if isinstance(valid, float) else None)


def _defaults(theirs: Theirs, draft: Draft) -> None:
    """Write out what Axolotl does when these keys are not given."""
    absent = [key for key in DEFAULTS if theirs.get(key) is None]
    for key in absent:
        words, ours, value = DEFAULTS[key]
        draft.write_out(key, words, ours, value)
    if not theirs.get("adapter"):
        draft.write_out("adapter", "none: all weights are trained", "train.method", "full")
    elif first_given(theirs, "lora_target_linear", "lora_target_modules") in (None, False):
        draft.write_out(
            "lora_target_modules",
            "PEFT's choice for the architecture, q_proj and v_proj for most",
            "train.target_modules",
            ["q_proj", "v_proj"],
        )
    if first_given(theirs, "warmup_steps", "warmup_ratio") is None:
        draft.write_out("warmup_ratio", "0.03 of all steps, at most 100", "train.warmup_steps", 0.03)
    if theirs.get("gradient_accumulation_steps") is None and not theirs.get("batch_size"):
        draft.write_out("gradient_accumulation_steps", "1", "train.gradient_accumulation_steps", 1)
    if draft.get("train.gradient_accumulation_steps") != 1:
        draft.write_out(
            "loss of a step",
            "the mean over its micro-batches, each of which counts alike",
            "",
            note="the mean over its trained tokens here, so a micro-batch with more of them counts for more",
        )


DEFAULTS: dict[str, tuple[str, str, object]] = {
    "sequence_len": ("512", "data.max_length", 512),
    "excess_length_strategy": ("drop", "data.on_too_long", "drop"),
    "micro_batch_size": ("1", "train.batch_size", 1),
    "num_epochs": ("1", "train.epochs", 1),
    "lora_dropout": ("0", "train.dropout", 0),
    "optimizer": ("adamw_torch_fused", "train.optimizer", "adamw"),
    "lr_scheduler": ("cosine", "train.lr_scheduler", "cosine"),
    "gradient_checkpointing": ("off", "train.gradient_checkpointing", False),
    "max_grad_norm": ("1", "train.max_grad_norm", 1),
    "seed": ("42", "seed", 42),
}
"""By key of theirs: its default in words, the key of ours and its value."""
