"""Thirty-five examples that Axolotl and LLaMA-Factory publish, and what a second reader says must become of each.

Named by their files, which are fetched; what stands here was read off them by hand, before the importer was asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Keys = dict[str, Any]
INT4 = {"bits": 4, "group_size": 64, "mode": "affine"}
INT8 = {"bits": 8, "group_size": 64, "mode": "affine"}
SEVEN = ["gate_proj", "down_proj", "up_proj", "q_proj", "v_proj", "k_proj", "o_proj"]
TURNS = {"role": "from", "content": "value"}


@dataclass(frozen=True)
class Example:
    """One published file. settings: keys of ours by path, None where unset; refused: exactly these; unused: some."""

    file: str
    settings: Keys = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def steps(batch: int, accumulation: int, epochs: float, rate: float) -> Keys:
    """The settings of the steps."""
    return {
        "train.batch_size": batch,
        "train.gradient_accumulation_steps": accumulation,
        "train.epochs": epochs,
        "train.learning_rate": rate,
        "train.lr_scheduler": "cosine",
        "train.min_lr_ratio": 0,
        "train.warmup_steps": 0.1,
        "train.early_stopping_patience": None,
    }


def lora(rank: int, alpha: float, dropout: float, targets: object = "all-linear") -> Keys:
    """The settings of an adapter."""
    return {
        "train.method": "lora",
        "train.rank": rank,
        "train.alpha": alpha,
        "train.dropout": dropout,
        "train.target_modules": targets,
    }


def rows(length: int, valid: float, too_long: str = "drop") -> Keys:
    """The settings of the rows; a tenth is held out for the scores, and a twentieth where they validate on nothing."""
    valid = valid or 0.05
    split = {"train": round(0.9 - valid, 6), "valid": valid, "test": 0.1}
    return {"data.max_length": length, "data.on_too_long": too_long, "data.split": split, "data.near_duplicates": False}


ALPACA = {"model.chat_template": "alpaca"}
AXOLOTL_EXAMPLES = [
    Example(
        "apertus/apertus-8b-qlora.yaml",
        lora(32, 16, 0.05)
        | rows(2048, 0.1)
        | steps(2, 4, 1, 2e-4)
        | {
            "model.base": "swiss-ai/Apertus-8B-Instruct-2509",
            "model.quantize": INT4,
            "data.sources": [{"hub": "fozziethebeat/alpaca_messages_2k_test"}],
            "train.packing": True,
            "train.gradient_checkpointing": True,
            "train.optimizer": "adamw",
            "train.eval_steps": 0.5,  # once an epoch, of which there is one; 1 would be every step
        },
        unused=("plugins", "bf16", "lora_target_modules", "attn_implementation"),
    ),
    Example(
        "archived/dbrx/16bit-lora.yaml",
        lora(8, 16, 0.05, ["q_proj", "k_proj", "v_proj", "out_proj", "layer"])
        | rows(512, 0)
        | steps(1, 1, 1, 2e-4)
        | ALPACA
        | {"train.packing": False, "train.gradient_checkpointing": False, "train.weight_decay": 0},
        unused=("fsdp", "fsdp_config", "trust_remote_code", "val_set_size"),
    ),
    Example(
        "archived/gptj/qlora.yml",
        lora(8, 32, 0.05)
        | rows(2048, 0.05)
        | steps(2, 2, 2, 1e-4)
        | ALPACA
        | {"model.quantize": INT4, "train.weight_decay": 0.1, "train.eval_steps": 0.125},
        unused=("special_tokens", "tf32"),
    ),
    Example(
        "archived/tiny-llama/lora.yml",
        lora(32, 16, 0.05)
        | rows(4096, 0.05)
        | steps(2, 4, 4, 2e-4)
        | ALPACA
        | {
            "model.base": "TinyLlama/TinyLlama_v1.1",
            "model.quantize": INT8,
            "train.eval_steps": 0.0625,
            "train.packing": True,
        },
        unused=("eval_sample_packing", "tokenizer_type"),
    ),
    Example(
        "archived/stablelm-2/1.6b/fft.yml",
        rows(4096, 0.05)
        | steps(1, 1, 1, 2e-4)
        | ALPACA
        | {"train.method": "full", "train.weight_decay": 0.1, "model.quantize": None},
        unused=("flash_attn_rms_norm", "flash_attn_fuse_mlp", "trust_remote_code"),
    ),
    Example(
        "llama-3/lora-1b-kernels.yml",
        lora(16, 32, 0, SEVEN)
        | rows(2048, 0.1)
        | steps(2, 2, 1, 2e-4)
        | ALPACA
        | {"model.quantize": None, "train.packing": True},
        unused=("lora_mlp_kernel", "loss_watchdog_threshold", "special_tokens"),
    ),
    Example(
        "llama-3/qlora-1b.yml",
        lora(32, 16, 0.05, SEVEN)
        | rows(2048, 0.1)
        | steps(2, 4, 1, 2e-4)
        | ALPACA
        | {"model.base": "NousResearch/Llama-3.2-1B", "model.quantize": INT4, "train.eval_steps": 0.25},
        unused=("special_tokens",),
    ),
    Example(
        "llama-2/lora.yml",
        lora(32, 16, 0.05) | rows(4096, 0.05) | steps(2, 4, 4, 2e-4) | ALPACA | {"model.quantize": INT8},
        unused=("model_type", "tokenizer_type"),
    ),
    Example(
        "mistral/mps/lora-mps.yml",
        lora(32, 16, 0.05) | rows(4096, 0) | steps(1, 8, 2, 2e-4) | ALPACA | {"model.quantize": None},
        unused=("val_set_size", "fp16", "lora_target_modules"),
    ),
    Example(
        "qwen3/32b-qlora.yaml",
        lora(16, 32, 0, ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "up_proj"])
        | rows(2048, 0)
        | steps(1, 2, 1, 2e-4)
        | {
            "model.base": "Qwen/Qwen3-32B",
            "model.quantize": INT4,
            "data.sources": [
                {
                    "hub": "mlabonne/FineTome-100k",
                    "hub_split": "train",
                    "limit": 0.2,
                    "fields": {"messages": "conversations"},
                    "turn_fields": TURNS,
                }
            ],
            "train.gradient_checkpointing": True,
        },
        unused=("strict", "gradient_checkpointing_kwargs", "lora_qkv_kernel"),
    ),
    Example(
        "falcon-h1/falcon-h1-1b-qlora.yaml",
        lora(32, 16, 0.05, ["q_proj", "k_proj", "v_proj", "o_proj", "in_proj", "gate_proj", "up_proj", "down_proj"])
        | rows(2048, 0)
        | steps(1, 4, 4, 2e-4)
        | {
            "data.sources": [
                {
                    "hub": "cgato/SlimOrcaDedupCleaned",
                    "fields": {"messages": "conversations"},
                    "turn_fields": TURNS,
                }
            ]
        },
    ),
    Example(
        "jamba/qlora.yaml",
        lora(8, 16, 0.05) | rows(4096, 0) | steps(1, 4, 2, 1e-5) | ALPACA | {"train.packing": False},
        unused=("low_cpu_mem_usage", "pad_to_sequence_len"),
    ),
    Example(
        "magistral/think/magistral-small-think-qlora.yaml",
        lora(32, 16, 0.05) | rows(2048, 0) | steps(2, 4, 1, 2e-4),
        unused=("tokenizer_use_mistral_common",),
    ),
    Example("archived/code-llama/7b/lora.yml", lora(32, 16, 0.05), ("special_tokens",)),
    Example(
        "phi/phi3-ft.yml",
        lora(64, 32, 0.05) | {"train.early_stopping_patience": 3, "train.max_grad_norm": 1.0, "train.eval_steps": 1000},
        ("datasets[0].type", "adam_beta2", "adam_epsilon", "resize_token_embeddings_to_32x"),
    ),
    Example("llama-3/lora-8b.yml", lora(32, 16, 0.05), ("lora_modules_to_save",)),
    Example(
        "llama-3/instruct-dpo-lora-8b.yml",
        lora(32, 16, 0.05),
        ("rl", "special_tokens", "datasets[0].field_chosen", "datasets[0].field_rejected"),
    ),
    Example("gemma3/gemma-3-4b-vision-qlora.yml", {}, ("processor_type", "lora_target_modules"), ("eot_tokens",)),
    Example(
        "gpt-oss/gpt-oss-20b-fft-fsdp2.yaml",
        {"train.method": "full"},
        ("model_quantization_config", "datasets[0].field_thinking"),
    ),
    Example(
        "streaming/pretrain.yaml",
        {"train.max_steps": 1000},
        ("pretraining_dataset", "streaming_multipack_buffer_size", "pretrain_multipack_attn"),
    ),
]

DEMO = {"fields": {"prompt": "instruction", "response": "output"}, "template": "{instruction}\n{input?}"}


def demo(*names: str, limit: int | None = 1000) -> Keys:
    """The sources of some of LLaMA-Factory's demo sets, with so many rows of each."""
    some = {} if limit is None else {"limit": limit}
    return {"data.sources": [{"path": f"data/{name}.json", **DEMO, **some} for name in names]}


BOTH = demo("identity", "alpaca_en_demo")
THEIRS = {"train.weight_decay": 0, "train.max_grad_norm": 1.0, "train.gradient_checkpointing": True, "seed": 42}
LORA_SFT = lora(8, 16, 0) | rows(2048, 0, "truncate") | steps(1, 8, 3.0, 1e-4) | THEIRS
LLAMA_FACTORY_EXAMPLES = [
    Example(
        "train_lora/qwen3_lora_sft.yaml",
        LORA_SFT | BOTH | {"model.base": "Qwen/Qwen3-4B-Instruct-2507", "model.quantize": None},
        unused=("trust_remote_code", "report_to", "stage"),
    ),
    Example(
        "train_lora/qwen3_lora_pretrain.yaml",
        LORA_SFT | {"data.sources": [{"path": "data/c4_demo.jsonl", "limit": 1000}]},
        unused=("stage",),
    ),
    Example(
        "train_full/qwen3_full_sft.yaml",
        rows(2048, 0, "truncate") | steps(1, 2, 3.0, 1e-5) | BOTH | {"train.method": "full"},
        unused=("deepspeed",),
    ),
    Example(
        "train_qlora/qwen3_lora_sft_otfq.yaml",
        LORA_SFT | BOTH | {"model.quantize": INT4},
        unused=("quantization_method",),
    ),
    Example("extras/fsdp_qlora/llama3_lora_sft.yaml", LORA_SFT | BOTH | {"model.quantize": INT4}),
    Example("train_lora/qwen3_lora_sft_ray.yaml", lora(8, 16, 0), ("dataset: identity", "dataset: alpaca_en_demo")),
    Example(
        "train_lora/qwen3_preprocess.yaml",
        lora(8, 16, 0)
        | rows(2048, 0, "truncate")
        | BOTH
        | {"train.batch_size": 8, "train.learning_rate": 5e-5, "train.lr_scheduler": "linear", "train.warmup_steps": 0},
        unused=("tokenized_path",),
    ),
    Example(
        "ktransformers/train_lora/qwen3moe_lora_sft_kt.yaml",
        LORA_SFT | demo("identity", "alpaca_en_demo", limit=100000),
        unused=("use_kt",),
    ),
    Example(
        "ascend/qwen3vlmoe_lora_sft_fsdp.yaml",
        lora(8, 16, 0)
        | rows(1024, 0, "truncate")
        | steps(8, 1, 3.0, 1e-4)
        | demo("alpaca_zh_demo", "alpaca_en_demo", limit=None)
        | {"seed": 1234},
        unused=("image_max_pixels", "use_v1_kernels", "flash_attn"),
    ),
    Example("extras/pissa/llama3_lora_sft.yaml", lora(8, 16, 0), ("pissa_init",)),
    Example("extras/dft/qwen2_full_sft.yaml", {"train.method": "full"}, ("use_dft_loss",)),
    Example("extras/loraplus/llama3_lora_sft.yaml", lora(8, 16, 0), ("loraplus_lr_ratio",)),
    Example("train_lora/qwen3_lora_dpo.yaml", {}, ("stage", "pref_beta", "pref_loss", "dataset: dpo_en_demo: ranking")),
    Example("extras/nlg_eval/llama3_lora_predict.yaml", {}, ("adapter_name_or_path",)),
    Example(
        "v1/train_lora/train_lora_sft.yaml",
        {},
        (
            "model",
            "model_class",
            "peft_config",
            "kernel_config",
            "dist_config",
            "train_dataset",
            "micro_batch_size",
            "sample_backend",
        ),
    ),
]
