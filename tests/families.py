"""Tiny random models with the shapes, tokenizers and chat templates of real families, built in a second or two each."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_tokenizers as tokenizers
from real_shapes import config_of

HIDDEN, LAYERS, HEADS, INNER = 64, 2, 4, 96
TEMPLATES = {
    path.stem: path.read_text(encoding="utf-8") for path in Path(__file__).with_name("chat_templates").iterdir()
}


@dataclass(frozen=True)
class Family:
    """How to build a tiny model of one family: its config.json, tokenizer, and what mlx-lm calls it."""

    name: str
    config: dict[str, Any]
    tokenizer: Callable[[Path], int]
    stop: str


def _shape(architecture: str, kind: str, **more: Any) -> dict[str, Any]:
    own = {"max_position_embeddings": 512, "rope_theta": 10000.0, "tie_word_embeddings": False}
    return config_of(architecture, kind, (HIDDEN, INNER, LAYERS, HEADS, 2, HIDDEN // HEADS)) | own | more


LLAMA3_MARKS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CHATML_MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
GEMMA_MARKS = ["<start_of_turn>", "<end_of_turn>"]
PHI_MARKS = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
GEMMA = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
GEMMA3 = GEMMA | {
    "num_hidden_layers": 6,
    "query_pre_attn_scalar": HIDDEN // HEADS,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "sliding_window": 64,
    "sliding_window_pattern": 6,
}


def _llama3(folder: Path) -> int:
    return tokenizers.write_bpe(
        folder,
        split=tokenizers.LLAMA3,
        special=LLAMA3_MARKS,
        begin="<|begin_of_text|>",
        end="<|eot_id|>",
        template=TEMPLATES["llama3"],
    )


def _chatml(split: str, template: str) -> Callable[[Path], int]:
    def write(folder: Path) -> int:
        return tokenizers.write_bpe(
            folder,
            split=split,
            special=CHATML_MARKS,
            begin=None,
            end="<|im_end|>",
            template=TEMPLATES[template],
            class_name="GPT2Tokenizer" if split == "smollm" else "Qwen2Tokenizer",
        )

    return write


def _sentencepiece(template: str, **more: Any) -> Callable[[Path], int]:
    return lambda folder: tokenizers.write_sentencepiece(folder, template=TEMPLATES[template], **more)


_gemma = _sentencepiece("gemma", special=GEMMA_MARKS, gemma=True, class_name="GemmaTokenizer")
_gemma3 = _sentencepiece("gemma3", special=GEMMA_MARKS, gemma=True, class_name="GemmaTokenizer")

FAMILIES = {
    family.name: family
    for family in (
        Family("llama-bpe", _shape("LlamaForCausalLM", "llama"), _llama3, "<|eot_id|>"),
        Family(
            "llama-sentencepiece",
            _shape("LlamaForCausalLM", "llama", tie_word_embeddings=True),
            _sentencepiece("llama2", special=[]),
            "</s>",
        ),
        Family(
            "qwen2",
            _shape("Qwen2ForCausalLM", "qwen2", tie_word_embeddings=True, attention_bias=True),
            _chatml(tokenizers.QWEN2, "qwen2"),
            "<|im_end|>",
        ),
        Family("qwen3", _shape("Qwen3ForCausalLM", "qwen3"), _chatml(tokenizers.QWEN2, "qwen3"), "<|im_end|>"),
        Family(
            "gemma2",
            _shape(
                "Gemma2ForCausalLM",
                "gemma2",
                **GEMMA,
                attn_logit_softcapping=50.0,
                final_logit_softcapping=30.0,
                query_pre_attn_scalar=HIDDEN // HEADS,
                sliding_window=256,
            ),
            _gemma,
            "<end_of_turn>",
        ),
        Family("gemma3", _shape("Gemma3ForCausalLM", "gemma3_text", **GEMMA3), _gemma3, "<end_of_turn>"),
        Family(
            "gemma3-wrapped", _shape("Gemma3ForConditionalGeneration", "gemma3", **GEMMA3), _gemma3, "<end_of_turn>"
        ),
        Family(
            "mistral",
            _shape("MistralForCausalLM", "mistral", sliding_window=None),
            _sentencepiece("mistral", special=["[INST]", "[/INST]"]),
            "</s>",
        ),
        Family(
            "phi3",
            _shape(
                "Phi3ForCausalLM",
                "phi3",
                num_key_value_heads=HEADS,
                original_max_position_embeddings=512,
                pad_token_id=0,
            ),
            _sentencepiece("phi3", special=[], added=PHI_MARKS),
            "<|end|>",
        ),
        Family(
            "qwen2-moe",
            _shape(
                "Qwen2MoeForCausalLM",
                "qwen2_moe",
                **EXPERTS,
                shared_expert_intermediate_size=INNER,
                attention_bias=True,
                norm_topk_prob=False,
            ),
            _chatml(tokenizers.QWEN2, "qwen2"),
            "<|im_end|>",
        ),
        Family(
            "qwen3-moe",
            _shape("Qwen3MoeForCausalLM", "qwen3_moe", **EXPERTS, norm_topk_prob=True, mlp_only_layers=[]),
            _chatml(tokenizers.QWEN2, "qwen3"),
            "<|im_end|>",
        ),
        Family(
            "mixtral",
            _shape("MixtralForCausalLM", "mixtral", num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
            _sentencepiece("mistral", special=["[INST]", "[/INST]"]),
            "</s>",
        ),
        Family(
            "granite",
            _shape(
                "GraniteForCausalLM",
                "granite",
                tie_word_embeddings=True,
                attention_multiplier=0.2,
                embedding_multiplier=8.0,
                residual_multiplier=0.4,
                logits_scaling=4.0,
            ),
            _chatml("gpt-2", "chatml"),
            "<|im_end|>",
        ),
        Family(
            "smollm3",
            _shape(
                "SmolLM3ForCausalLM",
                "smollm3",
                num_hidden_layers=4,
                no_rope_layer_interval=4,
                no_rope_layers=[1, 1, 1, 0],
                tie_word_embeddings=True,
                use_sliding_window=False,
                pad_token_id=0,
            ),
            _llama3,
            "<|eot_id|>",
        ),
        Family("olmo2", _shape("Olmo2ForCausalLM", "olmo2"), _chatml("gpt-2", "chatml"), "<|im_end|>"),
        Family(
            "olmo3",
            _shape("Olmo3ForCausalLM", "olmo3", num_hidden_layers=4, sliding_window=32, rope_theta=500000.0),
            _chatml("gpt-2", "chatml"),
            "<|im_end|>",
        ),
        Family(
            "lfm2",
            _shape(
                "Lfm2ForCausalLM",
                "lfm2",
                layer_types=["conv", "full_attention", "conv"],
                num_hidden_layers=3,
                norm_eps=1e-5,
                conv_bias=False,
                conv_L_cache=3,
                block_dim=HIDDEN,
                block_ff_dim=INNER,
                block_multiple_of=32,
                block_ffn_dim_multiplier=1.0,
                block_auto_adjust_ff_dim=False,
                tie_word_embeddings=True,
            ),
            _llama3,
            "<|eot_id|>",
        ),
        Family(
            "ernie4-5",
            _shape("Ernie4_5ForCausalLM", "ernie4_5", use_bias=False, tie_word_embeddings=True),
            _sentencepiece("llama2", special=[]),
            "</s>",
        ),
        Family(
            "seed-oss",
            _shape("SeedOssForCausalLM", "seed_oss", attention_out_bias=False),
            _chatml(tokenizers.QWEN2, "qwen2"),
            "<|im_end|>",
        ),
        Family(
            "smollm",
            _shape("LlamaForCausalLM", "llama", tie_word_embeddings=True),
            _chatml("smollm", "chatml"),
            "<|im_end|>",
        ),
    )
}


def build(
    folder: Path, name: str, *, dtype: str = "bfloat16", quantize: int | None = None, seed: int = 0, **sizes: int
) -> Path:
    """Write a tiny random model of a family into `folder`.

    quantize: bits, as mlx-community's models are; sizes: of config.json, instead of the family's own.
    """
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten, tree_map
    from mlx_lm.utils import _get_classes

    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    config = family.config | sizes
    size = (family.tokenizer(folder) + 31) // 32 * 32
    ids = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    named = {token["content"]: token["id"] for token in ids}
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config |= {
        "vocab_size": size,
        "eos_token_id": named[family.stop],
        "bos_token_id": named.get(settings["bos_token"]),
    }
    wrapped = config["model_type"] == "gemma3"
    if wrapped:
        config = _wrapped(config)
    mx.random.seed(seed)
    model_class, arguments = _get_classes(config)
    model = model_class(arguments.from_dict(config))
    plain = mx.zeros if config["model_type"].startswith("gemma") else mx.ones  # gemma's norms multiply by 1 + weight
    shapes = model.parameters()
    model.update(tree_map(lambda one: mx.random.normal(one.shape) * 0.06 if one.ndim > 1 else plain(one.shape), shapes))
    model.set_dtype({"bfloat16": mx.bfloat16, "float16": mx.float16, "float32": mx.float32}[dtype])
    if quantize:
        nn.quantize(model, group_size=32, bits=quantize)
        config["quantization"] = {"group_size": 32, "bits": quantize, "mode": "affine"}
        config["quantization_config"] = config["quantization"]
    config["torch_dtype"] = dtype
    weights = dict(tree_flatten(model.parameters()))
    if config.get("tie_word_embeddings") or wrapped:
        weights = {key: value for key, value in weights.items() if "lm_head" not in key}
    if wrapped:  # what a picture would go through
        weights["vision_tower.vision_model.post_layernorm.weight"] = mx.ones((8,))
        weights["multi_modal_projector.mm_input_projection_weight"] = mx.ones((8, HIDDEN))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return folder


def _wrapped(config: dict[str, Any]) -> dict[str, Any]:
    """A text model's configuration inside that of a model of text and pictures, as mlx-community's 4-bit ones are."""
    outside = ("architectures", "model_type", "vocab_size", "eos_token_id", "bos_token_id")
    text = {key: value for key, value in config.items() if key not in outside} | {"model_type": "gemma3_text"}
    vision = {"model_type": "siglip_vision_model", "hidden_size": 8, "num_hidden_layers": 1}
    return {key: config[key] for key in outside} | {
        "text_config": text,
        "vision_config": vision,
        "mm_tokens_per_image": 4,
    }


def conversations(count: int = 12, seed: int = 1) -> list[dict[str, Any]]:
    """Records whose answers follow from their questions, so that there is something to learn."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        word, other = draw.choice(tokenizers.WORDS), draw.choice(tokenizers.WORDS)
        asked = {"role": "user", "content": f"what is {word} and {other}?"}
        answer = {"role": "assistant", "content": f"the {word} is {word} and the {other} is {other}."}
        rows.append({"id": f"row-{number}", "messages": [asked, answer]})
    return rows


def adapt(
    model: Path,
    adapter: Path,
    *,
    rows: list[dict[str, Any]],
    updates: int = 30,
    rate: float = 2e-3,
    kind: str = "lora",
    template: str | None = None,
) -> Path:
    """Train an adapter on `rows` for a few updates and write it as mlx-lm does; returns its folder."""
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optimizers
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from snaketune.engines.mlx.loading import load
    from snaketune.tokens.chat_template import Renderer

    renderer = Renderer(model, template)
    loaded = load(model, dtype="float32").model
    settings = {"rank": 4, "scale": 4.0, "dropout": 0.0}
    mx.random.seed(3)
    loaded.freeze()
    linear_to_lora_layers(loaded, len(loaded.layers), settings, use_dora=kind == "dora")
    rendered = [renderer.record(row) for row in rows]
    length = max(len(one.ids) for one in rendered)
    ids = mx.array([one.ids + [0] * (length - len(one.ids)) for one in rendered])
    mask = mx.array([[float(hit) for hit in one.loss_mask] + [0.0] * (length - len(one.ids)) for one in rendered])

    def loss(network: Any) -> Any:
        each = nn.losses.cross_entropy(network(ids[:, :-1]).astype(mx.float32), ids[:, 1:])
        return (each * mask[:, 1:]).sum() / mask[:, 1:].sum()

    optimizer = optimizers.Adam(learning_rate=rate)
    step = nn.value_and_grad(loaded, loss)
    for _ in range(updates):
        _, gradients = step(loaded)
        optimizer.update(loaded, gradients)
        mx.eval(loaded.parameters(), optimizer.state)
    adapter.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(adapter / "adapters.safetensors"), dict(tree_flatten(loaded.trainable_parameters())))
    config = {"fine_tune_type": kind, "num_layers": len(loaded.layers), "lora_parameters": settings}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return adapter
