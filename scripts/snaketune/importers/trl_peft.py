"""What TRL's scripts and PEFT save: the YAML of `trl sft`, and the adapter_config.json of a finished adapter."""

from __future__ import annotations

from snaketune.importers.draft import Draft, Taken, Theirs
from snaketune.importers.key_rules import Convert, KeyRule, apply, for_keys, number, refused, taken, unused, whole
from snaketune.importers.places import Source, place, take_split
from snaketune.importers.shared_rules import (
    common_rules,
    dora,
    finish_data,
    finish_training,
    quantize,
    report_to,
    take_base,
    take_targets,
)

TOOL = "TRL"
PEFT_TOOL = "PEFT"


def _peft(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    draft.take(key, value, "train.method", "lora" if value else "full")


def _bits(bits: int) -> Convert:
    def convert(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
        if value:
            quantize(draft, key, value, bits)
        else:
            draft.leave_out(key, value, "the base is trained on as it is")

    return convert


def _targets(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    names = [str(one) for one in value] if isinstance(value, list) else str(value).replace(",", " ").split()
    take_targets(draft, key, value, names, "q_proj v_proj")


def _dataset(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    source: Source = place(str(value), draft.folder) or {"path": str(value)}
    if theirs.get("dataset_config") and "hub" in source:
        source["subset"] = theirs["dataset_config"]
    if theirs.get("dataset_text_field", "text") != "text":
        source["fields"] = {"text": theirs["dataset_text_field"]}
    if theirs.get("dataset_train_split"):
        take_split(draft, "dataset_train_split", theirs["dataset_train_split"], source)
    draft.set("data.sources", [source])
    draft.taken.append(Taken(key=key, theirs=value, ours="data.sources[0]", value=source))


def _of_dataset(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Note a key that `dataset_name` has read already."""
    draft.taken.append(Taken(key=key, theirs=value, ours="data.sources[0]", value=value))


def _loss(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    draft.take(key, value, "train.train_on_prompts", not value, "the other way round")


def _peft_type(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    if value == "LORA":
        draft.take(key, value, "train.method", "dora" if theirs.get("use_dora") else "lora")
    else:
        draft.refuse(key, value, "another kind of adapter than LoRA", "Train a LoRA adapter", is_final=True)


def _eval_steps(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    draft.take(key, value, "train.eval_steps", whole(value))


def _checkpointing(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    draft.take(key, value, "train.gradient_checkpointing", bool(value))


LORA: dict[str, KeyRule] = {
    "lora_alpha": taken("train.alpha"),
    "lora_dropout": taken("train.dropout"),
    "use_rslora": taken("train.rslora"),
    "use_dora": taken("train.method", "dora", convert=dora),
    "modules_to_save": refused("whole layers are trained beside the adapter", "Train without them", ([],)),
    "lora_modules_to_save": refused("whole layers are trained beside the adapter", "Train without them", ([],)),
}
TABLE: dict[str, KeyRule] = {
    **common_rules("optim", "lr_scheduler_type"),
    **LORA,
    "model_name_or_path": taken("model.base", convert=take_base),
    "model_revision": taken("model.revision"),
    "dataset_name": taken("data.sources", convert=_dataset),
    "dataset_train_split": taken("data.sources[].hub_split", "train[:5%] becomes a sample", convert=_of_dataset),
    "dataset_config": taken("data.sources[].subset", convert=_of_dataset),
    "dataset_test_split": refused("rows to validate on", "Name them as a source with split: valid", ("test",)),
    "dataset_text_field": taken("data.sources[].fields.text", convert=_of_dataset),
    "max_length": taken("data.max_length"),
    "max_seq_length": taken("data.max_length"),
    "packing": taken("train.packing"),
    "packing_strategy": unused("rows never see each other here"),
    "padding_free": unused("the same training without padding"),
    "eval_packing": unused("validation is not packed here"),
    "completion_only_loss": taken("train.train_on_prompts", "the other way round", convert=_loss),
    "assistant_only_loss": taken("train.train_on_prompts", "the other way round", convert=_loss),
    "per_device_train_batch_size": taken("train.batch_size"),
    "num_train_epochs": taken("train.epochs"),
    "gradient_checkpointing": taken("train.gradient_checkpointing", convert=_checkpointing),
    "eval_steps": taken("train.eval_steps", convert=_eval_steps),
    "eval_strategy": unused("train.eval_steps says when to validate"),
    "use_peft": taken("train.method", convert=_peft),
    "lora_r": taken("train.rank"),
    "lora_target_modules": taken("train.target_modules", convert=_targets),
    "lora_task_type": unused("answers are what is trained here"),
    "load_in_4bit": taken("model.quantize", convert=_bits(4)),
    "load_in_8bit": taken("model.quantize", convert=_bits(8)),
    **for_keys("bnb_4bit_quant_type use_bnb_nested_quant", unused("the format here is affine groups of 64")),
    "chat_template_path": taken("model.chat_template", "a Jinja file"),
    "report_to": taken("train.report_to", convert=report_to),
    "trust_remote_code": unused("code of a model's repository is never run here; a base that needs it is refused"),
    "eos_token": refused("the token that ends an answer", "The chat template's own is trained here"),
    "loss_type": refused("another loss", "Train without it", ("nll",)),
    "activation_offloading": unused("only memory depends on it"),
    "metric_for_best_model": unused("the validation loss decides here"),
    "load_best_model_at_end": unused("the best adapter is always kept here"),
}
ADAPTER_TABLE: dict[str, KeyRule] = {
    **LORA,
    "base_model_name_or_path": taken("model.base", convert=take_base),
    "revision": taken("model.revision"),
    "peft_type": taken("train.method", convert=_peft_type),
    "r": taken("train.rank"),
    "target_modules": taken("train.target_modules", convert=_targets),
    "task_type": refused("another task than writing an answer", "Use an adapter of a language model", ("CAUSAL_LM",)),
    "bias": refused("biases are trained too", "Train without them", ("none",)),
    "exclude_modules": refused("some layers are left out", "Name those that are trained", ([],)),
    "layers_to_transform": refused("only some layers are trained", "Set train.num_layers", ([],)),
    "rank_pattern": refused("ranks that differ by layer", "Train with one rank", ({},)),
    "alpha_pattern": refused("strengths that differ by layer", "Train with one alpha", ({},)),
    "init_lora_weights": refused("how the adapter begins", "Train without it", (True, "gaussian")),
    "trainable_token_indices": refused("tokens that are trained", "Train without them", ([],)),
    "target_parameters": refused("adapters on the weights of experts", "Train without them", ([],)),
    **for_keys(
        "auto_mapping inference_mode fan_in_fan_out layers_pattern megatron_config megatron_core peft_version "
        "qalora_group_size loftq_config eva_config corda_config runtime_config lora_bias use_qalora layer_replication "
        "ensure_weight_tying "
        "arrow_config alora_invocation_tokens lora_ga_config use_bdlora velora_config monteclora_config",
        unused("empty in an ordinary adapter, or no part of the training"),
    ),
}
DEFAULTS: dict[str, tuple[str, str, object]] = {
    "max_length": ("1024", "data.max_length", 1024),
    "per_device_train_batch_size": ("8", "train.batch_size", 8),
    "gradient_accumulation_steps": ("1", "train.gradient_accumulation_steps", 1),
    "learning_rate": ("2e-5", "train.learning_rate", 2e-5),
    "num_train_epochs": ("3", "train.epochs", 3),
    "optim": ("adamw_torch_fused", "train.optimizer", "adamw"),
    "lr_scheduler_type": ("linear", "train.lr_scheduler", "linear"),
    "max_grad_norm": ("1", "train.max_grad_norm", 1),
    "gradient_checkpointing": ("true", "train.gradient_checkpointing", True),
    "seed": ("42", "seed", 42),
}
LORA_DEFAULTS: dict[str, tuple[str, str, object]] = {
    "lora_r": ("16", "train.rank", 16),
    "lora_alpha": ("32", "train.alpha", 32),
    "lora_dropout": ("0.05", "train.dropout", 0.05),
}


def import_config(theirs: Theirs, draft: Draft) -> None:
    """Fill the draft from the YAML of `trl sft`."""
    apply(TABLE, theirs, draft)
    for key, (words, ours, value) in (DEFAULTS | (LORA_DEFAULTS if theirs.get("use_peft") else {})).items():
        if theirs.get(key) is None:
            draft.write_out(key, words, ours, value)
    if not theirs.get("use_peft"):
        draft.write_out("use_peft", "off: all weights are trained", "train.method", "full")
    elif theirs.get("lora_target_modules") is None:
        draft.write_out(
            "lora_target_modules", "PEFT's choice for the architecture", "train.target_modules", ["q_proj", "v_proj"]
        )
    if theirs.get("warmup_steps") is None and theirs.get("warmup_ratio") is None:
        draft.write_out("warmup_steps", "0", "train.warmup_steps", 0)
    if theirs.get("assistant_only_loss") is None and theirs.get("completion_only_loss") is None:
        draft.write_out(
            "assistant_only_loss",
            "off: conversations are trained whole; of prompt and completion only the completion is",
            "train.train_on_prompts",
            False,
            "for rows of messages set train.train_on_prompts: true to train them as TRL does without this option",
        )
    finish_training(draft, theirs)
    finish_data(draft, None)


def import_adapter(theirs: Theirs, draft: Draft) -> None:
    """Fill the draft from a PEFT adapter's adapter_config.json, which knows nothing of rows, rates or steps."""
    apply(ADAPTER_TABLE, theirs, draft)
    draft.write_out(
        "rows and rates", "not saved with an adapter", "", note="data.sources and train.* are this tool's defaults"
    )
    if draft.is_set("train.rank") and theirs.get("lora_alpha") is None:
        draft.write_out("lora_alpha", "8", "train.alpha", int(number(8)))
