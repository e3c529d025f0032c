"""LLaMA-Factory's YAML: the table of its keys, and what several of them say together."""

from __future__ import annotations

from snaketune.importers import llama_factory_data as data
from snaketune.importers.draft import Draft, Theirs
from snaketune.importers.key_rules import KeyRule, apply, for_keys, number, refused, taken, unused, whole
from snaketune.importers.shared_rules import (
    common_rules,
    dora,
    finish_data,
    finish_training,
    num_layers,
    quantize,
    report_to,
    take_base,
    take_number_of_rows,
    take_targets,
)

TOOL = "LLaMA-Factory"
DPO = "another objective than learning the answers of the rows"
ONLY_SFT = "Keep it in LLaMA-Factory; for the answers alone, use stage: sft"
OTHER_OPTIMIZER = "another optimizer"
USE_ADAMW = "Train with adamw, or choose one of train.optimizer"
IMAGES = "a model that reads images, sound or video"
OTHER_LOSS = "another loss than the cross-entropy of the answers"


def _method(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    if value == "lora":
        draft.take(key, value, "train.method", "dora" if theirs.get("use_dora") else "lora")
    elif value == "full":
        draft.take(key, value, "train.method", "full")
    else:
        draft.refuse(key, value, "another way of training than LoRA, DoRA or full", "Use lora or full", is_final=True)


def _stage(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    if value == "sft":
        draft.leave_out(key, value, "supervised fine-tuning is what is done here")
    elif value == "pt":
        draft.leave_out(key, value, "rows of plain text are trained whole here, which is pre-training going on")
        draft.write_out(
            key, "texts are joined and cut into pieces of cutoff_len", "", note="each row stays one row here"
        )
    else:
        draft.refuse(key, value, DPO, ONLY_SFT, is_final=True)


def _targets(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    names = [str(one).strip() for one in (value if isinstance(value, list) else str(value).split(","))]
    take_targets(draft, key, value, ["all-linear"] if names == ["all"] else names, "q_proj,v_proj, or all")


def _bits(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    if value in (2, 3, 4, 5, 6, 8):
        quantize(draft, key, value, int(number(value)))
    else:
        draft.refuse(key, value, "a number of bits that weights cannot have here", "Use 4 or 8")


def _no_checkpointing(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    draft.take(key, value, "train.gradient_checkpointing", not value, "the other way round")


def _packing(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    draft.take(key, value, "train.packing", bool(value))
    if not value:
        return
    size = theirs.get("cutoff_len", 2048)
    leak = "" if theirs.get("neat_packing") else "; there, rows of one sequence see each other, and here they never do"
    draft.write_out(
        "per_device_train_batch_size with packing",
        f"sequences of {size} tokens, each filled with as many rows as fit",
        "",
        note="batch_size counts rows here: multiply train.gradient_accumulation_steps by how many of your rows fit "
        f"into one sequence, to make steps of the same size{leak}",
    )


def _validation(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    size = number(value)
    if not size:
        draft.leave_out(key, value, "no validation there; see the list of defaults")
    elif size < 1:
        draft.take(key, value, "data.split.valid", size)
    else:
        draft.later.append(lambda: take_number_of_rows(draft, key, size, theirs.get("max_samples")))


def _eval_steps(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    if theirs.get("eval_strategy", theirs.get("evaluation_strategy")) == "epoch":
        draft.leave_out(key, value, "eval_strategy: epoch wins")
    else:
        draft.take(key, value, "train.eval_steps", whole(value))


def _eval_strategy(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    if value == "epoch" and not theirs.get("max_steps"):
        epochs = number(theirs.get("num_train_epochs") or 3)
        every = min(0.5, round(1 / epochs, 4))
        draft.take(key, value, "train.eval_steps", every, "a share of all steps: a validation at each epoch's end")
    else:
        draft.leave_out(key, value, "train.eval_steps says when to validate")


def _freeze(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    total = num_layers(str(theirs.get("model_name_or_path")))
    known = "" if total is None else f"; this base has {total} layers"
    draft.refuse(key, value, f"only some layers are trained{known}", "Use method: full with train.num_layers")


MULTIMODAL = (
    "image_max_pixels image_min_pixels image_do_pan_and_scan crop_to_patches video_max_pixels video_min_pixels "
    "video_fps video_maxlen use_audio_in_video audio_sampling_rate freeze_vision_tower freeze_multi_modal_projector "
    "freeze_language_model media_dir"
)
OPTIMIZERS = (
    "use_galore galore_target galore_rank galore_update_interval galore_scale galore_proj_type galore_layerwise "
    "use_apollo apollo_target apollo_rank apollo_update_interval apollo_scale apollo_proj apollo_proj_type "
    "apollo_scale_type apollo_layerwise apollo_scale_front use_badam badam_mode badam_switch_mode "
    "badam_switch_interval badam_start_block badam_update_ratio badam_mask_mode badam_verbose use_adam_mini"
)
TABLE: dict[str, KeyRule] = {
    **common_rules("optim", "lr_scheduler_type"),
    **for_keys(
        MULTIMODAL, unused("read only by models that see or hear; a set with images, sound or video is refused")
    ),
    **for_keys(OPTIMIZERS, refused(OTHER_OPTIMIZER, USE_ADAMW)),
    **for_keys(
        "use_kt kt_config kt_cpu_activation kt_weight_path kt_non_expert_weight_path kt_expert_checkpoint_path "
        "kt_use_lora_experts kt_lora_expert_num kt_lora_expert_intermediate_size use_v1_kernels use_mca "
        "use_hyper_parallel hyper_parallel_args hyper_parallel_cp_size use_fast_tokenizer upcast_layernorm "
        "upcast_lmhead_output offload_folder use_kv_cache tensor_model_parallel_size "
        "pipeline_model_parallel_size expert_model_parallel_size sequence_parallel use_distributed_optimizer "
        "bias_activation_fusion apply_rope_fusion overlap_param_gather overlap_grad_reduce moe_grouped_gemm "
        "moe_token_dispatcher_type recompute_granularity data_shared_file_system buffer_size "
        "include_effective_tokens_per_second compute_accuracy predict_with_generate do_predict eval_num_beams "
        "ignore_pad_token_for_loss hf_hub_token ms_hub_token om_hub_token infer_backend infer_dtype adapter_folder "
        "quantization_device_map double_quantization quantization_type max_new_tokens top_p temperature top_k "
        "eval_on_each_dataset swanlab_workspace swanlab_api_key swanlab_logdir project",
        unused("speed, memory, other devices or what is logged"),
    ),
    "model_name_or_path": taken("model.base", convert=take_base),
    "model_revision": taken("model.revision"),
    "stage": taken("", "sft and pt; others are refused", convert=_stage),
    "finetuning_type": taken("train.method", "lora and full; others are refused", convert=_method),
    "dataset": taken("data.sources", "through dataset_info.json", convert=data.take_datasets),
    "eval_dataset": taken("data.sources", "with split: valid", convert=data.take_validation_sets),
    "dataset_dir": taken("data.sources", "where dataset_info.json lies", convert=data.take_folder),
    "max_samples": taken("data.sources[].limit", "the first rows there, a sample here", convert=data.take_limit),
    "template": taken("model.chat_template", "compared with the base's own", convert=data.take_template),
    "default_system": taken("data.system"),
    "cutoff_len": taken("data.max_length"),
    "lora_rank": taken("train.rank"),
    "lora_alpha": taken("train.alpha"),
    "lora_dropout": taken("train.dropout"),
    "lora_target": taken("train.target_modules", convert=_targets),
    "use_rslora": taken("train.rslora"),
    "use_dora": taken("train.method", "dora", convert=dora),
    "per_device_train_batch_size": taken("train.batch_size"),
    "num_train_epochs": taken("train.epochs"),
    "val_size": taken("data.split.valid", "a number of rows becomes a share", convert=_validation),
    "eval_steps": taken("train.eval_steps", convert=_eval_steps),
    "eval_strategy": taken("train.eval_steps", convert=_eval_strategy),
    "evaluation_strategy": taken("train.eval_steps", convert=_eval_strategy),
    "quantization_bit": taken("model.quantize", convert=_bits),
    "quantization_method": unused("quantization_bit says it; the format here is affine groups of 64"),
    "packing": taken("train.packing", convert=_packing),
    "neat_packing": taken("train.packing", "rows never see each other here", convert=_packing),
    "train_on_prompt": taken("train.train_on_prompts"),
    "mask_history": taken("data.sources[].train_turns", "last", convert=data.take_mask_history),
    "early_stopping_steps": taken("train.early_stopping_patience", "validations without a gain, as there"),
    "report_to": taken("train.report_to", convert=report_to),
    "disable_gradient_checkpointing": taken("train.gradient_checkpointing", convert=_no_checkpointing),
    "gradient_checkpointing": taken("train.gradient_checkpointing"),
    "enable_thinking": unused("rows are rendered without thoughts of their own here; see the comparison of templates"),
    "preserve_thinking": unused("thoughts in a row are text of the row here"),
    "trust_remote_code": unused("code of a model's repository is never run here; a base that needs it is refused"),
    "mix_strategy": refused("rows of several sets alternate", "Set `weight` of each source", ("concat",)),
    "interleave_probs": refused("how often each set is read", "Set `weight` of each source"),
    "streaming": refused("rows are read while training", "Import without it"),
    "tokenized_path": unused("tokens are cached here by what they are made of"),
    "tool_format": refused("how tools are written into the prompt", "The base's own chat template does it here"),
    "resize_vocab": refused("new rows of the embeddings", "Add the tokens to the base first"),
    "add_tokens": refused("new tokens in the vocabulary", "Add them to the base first"),
    "add_special_tokens": refused("new tokens in the vocabulary", "Add them to the base first"),
    "new_special_tokens_config": refused("new tokens in the vocabulary", "Add them to the base first"),
    "split_special_tokens": refused("special tokens in a row are read as text", "Rows that hold one are left out here"),
    "additional_target": refused("whole layers are trained beside the adapter", "Train without them"),
    "adapter_name_or_path": refused("the training goes on from an adapter", "Fuse that adapter into the base first"),
    "create_new_adapter": refused("an adapter on top of another", "Fuse the first one into the base"),
    "pissa_init": refused("how the adapter begins (PiSSA)", "Train without it"),
    "pissa_iter": unused("pissa_init says whether it is used"),
    "pissa_convert": unused("pissa_init says whether it is used"),
    "use_llama_pro": refused("new layers are trained", "Train without it"),
    "freeze_trainable_layers": refused("only some layers are trained", "", convert=_freeze),
    "freeze_trainable_modules": refused("only some layers are trained", "Use train.num_layers", ("all",)),
    "freeze_extra_modules": refused("only some layers are trained", "Use train.num_layers"),
    "mixture_of_depths": refused("another architecture", "Train without it"),
    "rope_scaling": refused("positions beyond the base's own context", "Change config.json in a local copy"),
    "shift_attn": refused("another attention", "Train without it"),
    "moe_aux_loss_coef": refused("a term of the loss", "Train without it", (0,)),
    "use_muon": refused("its Muon, with Adam for some weights", "Set train.optimizer: muon yourself"),
    "use_dft_loss": refused(OTHER_LOSS, "Train without it"),
    "use_asft_loss": refused(OTHER_LOSS, "Train without it"),
    "asft_alpha": unused("use_asft_loss says whether it is used"),
    "use_eaft_loss": refused(OTHER_LOSS, "Train without it"),
    "eaft_alpha": unused("use_eaft_loss says whether it is used"),
    "ref_model": refused(OTHER_LOSS, "Train without it"),
    "fp8": refused("training in 8-bit floating point", "Train without it"),
    "fp8_backend": unused("fp8 says whether it is used"),
    "fp8_enable_fsdp_float8_all_gather": unused("fp8 says whether it is used"),
    "train_from_scratch": refused("the base's weights are thrown away", "Train without it", is_final=True),
    "disable_shuffling": refused("rows in the order of the file", "Train without it"),
    **for_keys(
        "pref_beta pref_ftx pref_loss dpo_label_smoothing kto_chosen_weight kto_rejected_weight simpo_gamma "
        "reward_model ppo_epochs",
        refused(DPO, ONLY_SFT, is_final=True),
    ),
    **for_keys("oft_rank oft_block_size oft_target module_dropout", refused("another kind of adapter", "Use lora")),
}

DEFAULTS: dict[str, tuple[str, str, object]] = {
    "cutoff_len": ("2048", "data.max_length", 2048),
    "lora_rank": ("8", "train.rank", 8),
    "lora_dropout": ("0", "train.dropout", 0),
    "lora_target": ("all", "train.target_modules", "all-linear"),
    "per_device_train_batch_size": ("8", "train.batch_size", 8),
    "gradient_accumulation_steps": ("1", "train.gradient_accumulation_steps", 1),
    "learning_rate": ("5e-5", "train.learning_rate", 5e-5),
    "num_train_epochs": ("3", "train.epochs", 3),
    "optim": ("adamw_torch", "train.optimizer", "adamw"),
    "lr_scheduler_type": ("linear", "train.lr_scheduler", "linear"),
    "max_grad_norm": ("1", "train.max_grad_norm", 1),
    "finetuning_type": ("lora", "train.method", "lora"),
    "disable_gradient_checkpointing": ("false", "train.gradient_checkpointing", True),
    "seed": ("42", "seed", 42),
}
"""By key of theirs: its default in words, the key of ours and its value."""


def import_config(theirs: Theirs, draft: Draft) -> None:
    """Fill the draft from the keys of a LLaMA-Factory configuration."""
    apply(TABLE, theirs, draft)
    for key, (words, ours, value) in DEFAULTS.items():
        if theirs.get(key) is None and not (key == "disable_gradient_checkpointing" and draft.is_set(ours)):
            draft.write_out(key, words, ours, value)
    rank = draft.get("train.rank")
    if theirs.get("lora_alpha") is None and isinstance(rank, int):
        draft.write_out("lora_alpha", "twice the rank", "train.alpha", 2 * rank)
    if theirs.get("warmup_steps") is None and theirs.get("warmup_ratio") is None:
        draft.write_out("warmup_steps", "0", "train.warmup_steps", 0)
    draft.write_out(
        "rows longer than cutoff_len",
        "prompt and answer are shortened in proportion, turn by turn, so that something of each is left",
        "data.on_too_long",
        "truncate",
        "the end of the row is cut off here; data/tokens/*/tokens.json lists the rows",
    )
    finish_training(draft, theirs)
    valid = draft.get("data.split.valid") if draft.is_set("data.split.valid") else None
    finish_data(draft, valid if isinstance(valid, float) else None)
