"""Configurations of other tools, written anew after the shapes that their repositories show, and what must become of
each: settings of ours by path, what is written out, what is of no effect, what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Keys = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One configuration. settings, written_out: keys of ours; unused, refused: keys of theirs; all must be there."""

    name: str
    keys: Keys
    settings: Keys = field(default_factory=dict)
    written_out: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def without(keys: Keys, *names: str) -> Keys:
    return {name: value for name, value in keys.items() if name not in names}


NF4 = {"bits": 4, "group_size": 64, "mode": "affine"}
INT8 = {"bits": 8, "group_size": 64, "mode": "affine"}
ALPACA_ROWS = {"prompt": "instruction", "response": "output"}
SEVEN = ["gate_proj", "down_proj", "up_proj", "q_proj", "v_proj", "k_proj", "o_proj"]

AX: Keys = {
    "base_model": "some-lab/Llama-3.2-1B",
    "load_in_8bit": False,
    "load_in_4bit": True,
    "adapter": "qlora",
    "datasets": [{"path": "some-lab/instructions-cleaned", "type": "alpaca"}],
    "dataset_prepared_path": "last_run_prepared",
    "val_set_size": 0.1,
    "output_dir": "./outputs/qlora-out",
    "sequence_len": 2048,
    "sample_packing": True,
    "eval_sample_packing": True,
    "lora_r": 32,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "lora_target_linear": True,
    "gradient_accumulation_steps": 4,
    "micro_batch_size": 2,
    "num_epochs": 1,
    "optimizer": "adamw_bnb_8bit",
    "lr_scheduler": "cosine",
    "learning_rate": 0.0002,
    "bf16": "auto",
    "tf32": False,
    "gradient_checkpointing": True,
    "logging_steps": 1,
    "attn_implementation": "flash_attention_2",
    "warmup_ratio": 0.1,
    "evals_per_epoch": 4,
    "saves_per_epoch": 1,
    "weight_decay": 0.0,
}
CHAT = {"path": "some-lab/messages-2k", "type": "chat_template"}
SHAREGPT = {
    "path": "some-lab/orca-dedup",
    "type": "chat_template",
    "field_messages": "conversations",
    "message_property_mappings": {"role": "from", "content": "value"},
}
ALWAYS = ("train.min_lr_ratio", "data.near_duplicates", "data.split.test", "train.early_stopping_patience")

AXOLOTL = [
    Case(
        "llama-qlora",
        AX | {"special_tokens": {"pad_token": "<|end_of_text|>"}, "loss_watchdog_threshold": 5.0},
        {
            "model.base": "some-lab/Llama-3.2-1B",
            "model.quantize": NF4,
            "model.chat_template": "alpaca",
            "data.max_length": 2048,
            "data.on_too_long": "drop",
            "data.split": {"train": 0.8, "valid": 0.1, "test": 0.1},
            "train.method": "lora",
            "train.rank": 32,
            "train.alpha": 16,
            "train.dropout": 0.05,
            "train.target_modules": "all-linear",
            "train.epochs": 1,
            "train.batch_size": 2,
            "train.gradient_accumulation_steps": 4,
            "train.packing": True,
            "train.optimizer": "adamw",
            "train.learning_rate": 0.0002,
            "train.warmup_steps": 0.1,
            "train.eval_steps": 0.25,
            "train.weight_decay": 0,
            "train.min_lr_ratio": 0,
            "train.early_stopping_patience": None,
            "seed": 42,
        },
        (*ALWAYS, "model.chat_template", "data.on_too_long"),
        ("special_tokens", "bf16", "attn_implementation", "output_dir", "loss_watchdog_threshold"),
    ),
    Case(
        "llama-named-layers",
        without(AX, "lora_target_linear") | {"lora_target_modules": SEVEN, "revision_of_model": "6299b5a"},
        {"train.target_modules": SEVEN, "model.revision": "6299b5a"},
    ),
    Case(
        "llama-embeddings-saved",
        AX | {"lora_modules_to_save": ["embed_tokens", "lm_head"], "dataset_exact_deduplication": True},
        refused=("lora_modules_to_save",),
        unused=("dataset_exact_deduplication",),
    ),
    Case(
        "instruct-8bit-chat",
        AX
        | {
            "adapter": "lora",
            "load_in_8bit": True,
            "load_in_4bit": False,
            "chat_template": "llama3",
            "datasets": [CHAT],
            "sample_packing": False,
            "num_epochs": 4,
            "val_set_size": 0.05,
        },
        {
            "model.quantize": INT8,
            "model.chat_template": "llama-3",
            "train.packing": False,
            "train.eval_steps": 0.0625,
            "data.split": {"train": 0.85, "valid": 0.05, "test": 0.1},
            "data.sources": [{"hub": "some-lab/messages-2k"}],
        },
        ALWAYS,
    ),
    Case(
        "full-fine-tuning",
        without(AX, "adapter", "load_in_4bit", "load_in_8bit", "lora_r", "lora_alpha", "lora_dropout")
        | {"learning_rate": "2e-5", "optimizer": "paged_adamw_8bit", "gradient_checkpointing_kwargs": {"use": 1}},
        {"train.method": "full", "train.learning_rate": 2e-5, "train.optimizer": "adamw"},
        ("train.method",),
        ("gradient_checkpointing_kwargs",),
    ),
    Case(
        "preferences",
        AX | {"rl": "dpo", "datasets": [CHAT | {"field_chosen": "chosen", "field_rejected": "rejected"}]},
        refused=("rl", "datasets[0].field_chosen", "datasets[0].field_rejected"),
    ),
    Case(
        "fsdp",
        AX | {"fsdp": ["full_shard", "auto_wrap"], "fsdp_config": {"fsdp_offload_params": True}, "tf32": True},
        {"train.packing": True},
        unused=("fsdp", "fsdp_config", "tf32"),
    ),
    Case(
        "gemma-without-system-turns",
        AX
        | {
            "chat_template": "gemma",
            "eot_tokens": ["<end_of_turn>"],
            "datasets": [SHAREGPT | {"drop_system_message": True}],
        },
        refused=("datasets[0].drop_system_message",),
        unused=("eot_tokens",),
    ),
    Case(
        "sharegpt-without-validation",
        without(AX, "evals_per_epoch") | {"chat_template": "gemma3", "datasets": [SHAREGPT], "val_set_size": 0.0},
        {
            "model.chat_template": None,
            "data.split": {"train": 0.85, "valid": 0.05, "test": 0.1},
            "data.sources": [
                {
                    "hub": "some-lab/orca-dedup",
                    "fields": {"messages": "conversations"},
                    "turn_fields": {"role": "from", "content": "value"},
                }
            ],
        },
        ("data.split.valid", "data.split.test"),
        ("val_set_size",),
    ),
    Case(
        "a-part-of-a-split",
        AX
        | {
            "chat_template": "chatml",
            "datasets": [SHAREGPT | {"split": "train[:20%]"}, CHAT | {"split": "train[:500]"}],
        },
        {"model.chat_template": "chatml"},
        ("",),  # theirs are the first rows, ours a sample
    ),
    Case(
        "other-adam",
        AX | {"adam_beta2": 0.95, "adam_epsilon": 1e-05, "early_stopping_patience": 3, "eval_steps": 1000},
        refused=("adam_beta2", "adam_epsilon"),
    ),
    Case(
        "patience-and-steps",
        without(AX, "evals_per_epoch", "warmup_ratio", "num_epochs")
        | {"early_stopping_patience": 3, "eval_steps": 50, "max_steps": 305, "max_grad_norm": 0.5, "warmup_steps": 10},
        {
            "train.early_stopping_patience": 3,
            "train.eval_steps": 50,
            "train.max_steps": 305,
            "train.max_grad_norm": 0.5,
            "train.warmup_steps": 10,
        },
        ("train.epochs",),
    ),
    Case(
        "pictures",
        AX
        | {
            "processor_type": "AutoProcessor",
            "lora_target_linear": None,
            "lora_target_modules": r"model.language_model.layers.[\d]+.(mlp|self_attn).(up|down|q|k|v|o)_proj",
            "skip_prepare_dataset": True,
        },
        refused=("processor_type", "lora_target_modules"),
    ),
    Case(
        "thoughts",
        AX
        | {
            "datasets": [CHAT | {"field_thinking": "thinking", "template_thinking_key": "thinking"}],
            "lr_scheduler": "constant_with_warmup",
            "activation_offloading": True,
        },
        refused=("datasets[0].field_thinking",),
        unused=("activation_offloading",),
    ),
    Case(
        "kernels-and-plugins",
        AX
        | {
            "plugins": [
                "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin",
                "axolotl.integrations.liger.LigerPlugin",
            ],
            "liger_rms_norm": True,
            "lora_mlp_kernel": True,
        },
        {"train.rank": 32},
        unused=("plugins", "liger_rms_norm", "lora_mlp_kernel"),
    ),
    Case(
        "relora",
        AX | {"relora": True, "relora_prune_ratio": 0.9, "special_tokens": {"bos_token": "<s>", "eos_token": "</s>"}},
        refused=("relora", "special_tokens"),
    ),
    Case(
        "texts",
        AX | {"datasets": [{"path": "some-lab/book", "type": "completion", "field": "chapter", "name": "main"}]},
        {"data.sources": [{"hub": "some-lab/book", "fields": {"text": "chapter"}, "subset": "main"}]},
        ("",),  # long texts are cut there
    ),
    Case(
        "segments-and-prompts",
        AX | {"datasets": [{"path": "rows/pieces.jsonl", "type": "input_output"}], "train_on_inputs": True},
        {"data.sources": [{"path": "rows/pieces.jsonl"}], "train.train_on_prompts": True},
    ),
    Case(
        "bare-lora",
        {
            "base_model": "some-lab/tiny",
            "adapter": "lora",
            "lora_r": 8,
            "lora_alpha": 16,
            "peft_use_rslora": True,
            "datasets": [{"path": "some-lab/instructions", "type": "alpaca"}],
            "learning_rate": "1e-4",
        },
        {
            "train.target_modules": ["q_proj", "v_proj"],
            "train.batch_size": 1,
            "train.gradient_accumulation_steps": 1,
            "train.epochs": 1,
            "train.dropout": 0,
            "train.gradient_checkpointing": False,
            "train.warmup_steps": 0.03,
            "train.lr_scheduler": "cosine",
            "train.rslora": True,
            "data.max_length": 512,
        },
        ("train.target_modules", "train.warmup_steps", "train.gradient_checkpointing", "data.max_length"),
    ),
    Case(
        "a-slip",
        AX | {"learning_rte": 3, "datasets": [{"path": "s3://bucket/rows.jsonl", "type": "alpaca"}]},
        refused=("learning_rte", "datasets[0].path"),
    ),
]

LF: Keys = {
    "model_name_or_path": "some-lab/Qwen3-4B-Instruct",
    "trust_remote_code": True,
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 8,
    "lora_target": "all",
    "dataset": "identity,alpaca_demo",
    "template": "qwen3_nothink",
    "cutoff_len": 2048,
    "max_samples": 1000,
    "preprocessing_num_workers": 16,
    "dataloader_num_workers": 4,
    "output_dir": "saves/qwen3-4b/lora/sft",
    "logging_steps": 10,
    "save_steps": 500,
    "plot_loss": True,
    "overwrite_output_dir": True,
    "save_only_model": False,
    "report_to": "none",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "learning_rate": 0.0001,
    "num_train_epochs": 3.0,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "bf16": True,
    "ddp_timeout": 180000000,
    "resume_from_checkpoint": None,
}
REGISTRY: dict[str, Any] = {
    "identity": {"file_name": "identity.json"},
    "alpaca_demo": {"file_name": "alpaca_demo.json"},
    "tool_demo": {
        "file_name": "tool_demo.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "tools": "tools"},
    },
    "dialogs": {
        "hf_hub_url": "some-lab/dialogs",
        "ms_hub_url": "other-lab/dialogs",
        "subset": "short",
        "split": "train_sft",
        "formatting": "sharegpt",
        "columns": {"messages": "dialog", "system": "setting"},
        "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "caller", "assistant_tag": "agent"},
    },
    "stories": {"file_name": "stories.jsonl", "columns": {"prompt": "story"}},
    "pictures": {"file_name": "pictures.json", "formatting": "sharegpt", "columns": {"images": "images"}},
    "pairs": {"file_name": "pairs.json", "ranking": True, "columns": {"chosen": "chosen", "rejected": "rejected"}},
    "past": {"file_name": "past.json", "columns": ALPACA_ROWS | {"history": "history"}, "num_samples": 20},
}
DEMO_FIELDS = {"fields": ALPACA_ROWS, "template": "{instruction}\n{input?}"}

LLAMA_FACTORY = [
    Case(
        "demo",
        LF,
        {
            "model.base": "some-lab/Qwen3-4B-Instruct",
            "model.chat_template": None,
            "data.max_length": 2048,
            "data.on_too_long": "truncate",
            "data.sources": [
                DEMO_FIELDS | {"path": "lf/identity.json", "limit": 1000},
                DEMO_FIELDS | {"path": "lf/alpaca_demo.json", "limit": 1000},
            ],
            "data.split": {"train": 0.85, "valid": 0.05, "test": 0.1},
            "train.rank": 8,
            "train.alpha": 16,
            "train.dropout": 0,
            "train.target_modules": "all-linear",
            "train.batch_size": 1,
            "train.gradient_accumulation_steps": 8,
            "train.epochs": 3.0,
            "train.learning_rate": 0.0001,
            "train.warmup_steps": 0.1,
            "train.weight_decay": 0,
            "train.min_lr_ratio": 0,
            "seed": 42,
        },
        (*ALWAYS, "train.alpha", "train.dropout", "data.split.valid", ""),
        ("trust_remote_code", "bf16", "ddp_timeout", "report_to", "stage"),
    ),
    Case(
        "full-and-deepspeed",
        without(LF, "lora_rank", "lora_target") | {"finetuning_type": "full", "deepspeed": "ds_z3_config.json"},
        {"train.method": "full"},
        unused=("deepspeed",),
    ),
    Case("oft", LF | {"finetuning_type": "oft", "oft_block_size": 32}, refused=("finetuning_type", "oft_block_size")),
    Case(
        "dpo",
        LF | {"stage": "dpo", "dataset": "pairs", "pref_beta": 0.1},
        refused=("stage", "dataset: pairs: ranking", "pref_beta"),
    ),
    Case(
        "pictures",
        LF | {"dataset": "pictures,identity", "image_max_pixels": 262144},
        refused=("dataset: pictures: columns.images",),
        unused=("image_max_pixels",),
    ),
    Case(
        "quantized",
        LF | {"quantization_bit": 4, "quantization_method": "bnb", "double_quantization": False},
        {"model.quantize": NF4},
        unused=("quantization_method", "double_quantization"),
    ),
    Case(
        "quantized-elsewhere", LF | {"model_name_or_path": "some-lab/Llama-3-8B-GPTQ"}, refused=("model_name_or_path",)
    ),
    Case(
        "tools",
        without(LF, "max_samples")
        | {"dataset": "tool_demo", "val_size": 0.1, "eval_steps": 200, "eval_strategy": "steps"},
        {
            "data.sources": [{"path": "lf/tool_demo.json", "fields": {"messages": "conversations", "tools": "tools"}}],
            "data.split": {"train": 0.8, "valid": 0.1, "test": 0.1},
            "train.eval_steps": 200,
        },
    ),
    Case(
        "tags-and-hub",
        without(LF, "max_samples") | {"dataset": ["dialogs"], "eval_dataset": "identity", "mask_history": True},
        {
            "data.sources": [
                {
                    "hub": "some-lab/dialogs",
                    "subset": "short",
                    "hub_split": "train_sft",
                    "fields": {"messages": "dialog", "system": "setting"},
                    "turn_fields": {"role": "who", "content": "says"},
                    "roles": {"user": ["caller"], "assistant": ["agent"]},
                    "train_turns": "last",
                },
                DEMO_FIELDS | {"path": "lf/identity.json", "split": "valid", "train_turns": "last"},
            ],
            "data.split": {"train": 0.9, "valid": 0.0, "test": 0.1},
        },
    ),
    Case(
        "texts",
        without(LF, "max_samples") | {"stage": "pt", "dataset": "stories"},
        {"data.sources": [{"path": "lf/stories.jsonl", "fields": {"text": "story"}}]},
        ("",),
    ),
    Case(
        "history-and-a-number-of-samples",
        LF | {"dataset": "past", "max_samples": 50},
        {"data.sources": [{"path": "lf/past.json", "fields": ALPACA_ROWS | {"history": "history"}, "limit": 20}]},
    ),
    Case(
        "extras",
        LF
        | {
            "use_galore": True,
            "galore_rank": 128,
            "loraplus_lr_ratio": 16.0,
            "neftune_noise_alpha": 5,
            "pissa_init": True,
        },
        refused=("use_galore", "galore_rank", "loraplus_lr_ratio", "neftune_noise_alpha", "pissa_init"),
    ),
    Case(
        "packing-and-dora",
        LF
        | {"packing": True, "neat_packing": True, "use_dora": True, "use_rslora": True, "lora_target": "q_proj,v_proj"},
        {
            "train.packing": True,
            "train.method": "dora",
            "train.rslora": True,
            "train.target_modules": ["q_proj", "v_proj"],
        },
        ("",),  # batch_size counts rows here
    ),
    Case(
        "mixed-sets",
        LF | {"mix_strategy": "interleave_under", "interleave_probs": "0.5,0.5", "train_on_prompt": True},
        refused=("mix_strategy", "interleave_probs"),
    ),
    Case(
        "an-unknown-set",
        LF | {"dataset": "identitty", "disable_gradient_checkpointing": True, "early_stopping_steps": 4},
        refused=("dataset: identitty",),
    ),
]

MLX: Keys = {
    "model": "some-lab/Llama-3.2-1B-Instruct-bf16",
    "train": True,
    "fine_tune_type": "lora",
    "optimizer": "adamw",
    "data": "some-lab/sql",
    "seed": 0,
    "num_layers": 16,
    "batch_size": 4,
    "iters": 1000,
    "val_batches": 25,
    "learning_rate": "1e-5",
    "steps_per_report": 10,
    "steps_per_eval": 200,
    "grad_accumulation_steps": 1,
    "resume_adapter_file": None,
    "adapter_path": "adapters",
    "save_every": 100,
    "test": False,
    "max_seq_length": 2048,
    "grad_checkpoint": False,
    "lora_parameters": {"keys": ["self_attn.q_proj", "self_attn.v_proj"], "rank": 8, "scale": 20.0, "dropout": 0.0},
}
MLX_LM = [
    Case(
        "example",
        MLX,
        {
            "model.base": "some-lab/Llama-3.2-1B-Instruct-bf16",
            "train.num_layers": 16,
            "train.max_steps": 1000,
            "train.eval_steps": 200,
            "train.alpha": 160,
            "train.target_modules": ["q_proj", "v_proj"],
            "train.train_on_prompts": True,
            "train.lr_scheduler": "constant",
            "train.max_grad_norm": None,
            "train.weight_decay": 0.01,
            "train.gradient_checkpointing": False,
            "data.sources": [
                {"hub": "some-lab/sql", "hub_split": split, "split": split} for split in ("train", "valid", "test")
            ],
            "data.split": {"train": 1.0, "valid": 0.0, "test": 0.0},
        },
        ("train.train_on_prompts", "train.lr_scheduler", "train.max_grad_norm", ""),
        ("val_batches", "save_every", "adapter_path"),
    ),
    Case(
        "schedule-and-accumulation",
        MLX
        | {
            "optimizer": "adam",
            "mask_prompt": True,
            "num_layers": -1,
            "grad_accumulation_steps": 4,
            "lr_schedule": {"name": "cosine_decay", "warmup": 100, "arguments": ["1e-5", 1000, "1e-7"]},
        },
        {
            "train.lr_scheduler": "cosine",
            "train.min_lr_ratio": 0.01,
            "train.warmup_steps": 100,
            "train.max_steps": 250,
            "train.eval_steps": 50,
            "train.num_layers": None,
            "train.train_on_prompts": False,
            "train.weight_decay": 0,
        },
    ),
    Case(
        "hub-features",
        without(MLX, "data")
        | {
            "hf_dataset": {
                "path": "some-lab/bills",
                "train_split": "train[:1000]",
                "prompt_feature": "text",
                "completion_feature": "summary",
            }
        },
        {
            "data.sources": [
                {
                    "hub": "some-lab/bills",
                    "hub_split": "train",
                    "limit": 1000,
                    "fields": {"prompt": "text", "response": "summary"},
                }
            ],
            "data.split": {"train": 0.85, "valid": 0.05, "test": 0.1},
        },
        ("", "data.split.test"),
    ),
    Case(
        "defaults-alone",
        {"model": "some-lab/tiny", "data": "some-lab/sql", "train": True, "fine_tune_type": "dora"},
        {
            "train.method": "dora",
            "train.optimizer": "adam",
            "train.rank": 8,
            "train.alpha": 160,
            "train.learning_rate": 1e-5,
            "train.num_layers": 16,
            "train.max_steps": 1000,
            "data.max_length": 2048,
        },
        ("train.optimizer", "train.alpha", "train.num_layers", "train.max_steps", "train.learning_rate"),
    ),
    Case(
        "goes-on-from-an-adapter",
        MLX
        | {
            "resume_adapter_file": "adapters/0000100_adapters.safetensors",
            "optimizer_config": {"adamw": {"betas": [0.9, 0.98], "weight_decay": 0.05}},
            "lr_schedule": {"name": "exponential_decay", "arguments": [1e-5, 0.9]},
        },
        refused=("resume_adapter_file", "optimizer_config.betas", "lr_schedule"),
    ),
]
