"""Base models: their names under results/models, and the manifest that stands for a model in every other step.

A manifest is a small JSON file: {"base", "revision", "commit", "folder", "quantize", "files": {name: {"bytes",
"sha256"}}}. Steps depend on it, never on the folder, so that a touched or re-linked weight file reruns nothing and a
changed one is found out.

The functions at the end read in config.json what a base is: of text and pictures, of experts, quantized by whom.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from snaketune.config.sections import ModelConfig, QuantizeConfig, Section
from snaketune.contracts.data import ModelFile, ModelManifest, QuantizeRecord, ReadAs
from snaketune.errors import ModelError
from snaketune.files import StrPath, read_json, sha256, write_json
from snaketune.model import untrusted_files
from snaketune.runtime.progress import ByteProgress

SMALL = ("*.json", "*.jinja", "*.txt", "*.model")
WEIGHTS = ("*.safetensors",)


class BaseConfig(Section, frozen=True, kw_only=True):
    """The part of `model` that says which base it is, and how it is quantized."""

    base: str
    revision: str
    quantize: QuantizeConfig | None = None


def model_key(model: ModelConfig) -> str:
    """The name of a base (a `model` section) under results/models: readable, and one for each base and revision."""
    return plain_key(model) + quantize_suffix(model.quantize)


def plain_key(model: ModelConfig) -> str:
    """The key of the base as it comes, before any quantization of ours."""
    base, revision = model.base, model.revision
    if base == "demo":
        return "demo"
    identity = base if is_local(base) else f"{base}@{revision}"
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", base.rstrip("/").split("/")[-1]).strip("-.")
    return f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def quantize_suffix(quantize: QuantizeConfig | None) -> str:
    if not quantize:
        return ""
    return f"-{quantize.mode}-{quantize.bits}bit-g{quantize.group_size}"


def tokens_key(model: ModelConfig, num_virtual_tokens: int = 0) -> str:
    """The name of what this base's tokenizer and template make of the rows; quantizing changes neither."""
    template = model.chat_template
    virtual = f"-prompt{num_virtual_tokens}" if num_virtual_tokens else ""
    if not template:
        return plain_key(model) + virtual
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(template).stem)
    is_file = Path(template).name != template or Path(template).suffix
    digest = f"-{hashlib.sha256(template.encode()).hexdigest()[:8]}" if is_file else ""  # many files may have one stem
    return f"{plain_key(model)}-{stem}{digest}{virtual}"


def is_local(base: str) -> bool:
    """Whether a base names a folder on this machine rather than a repository of the hub."""
    return base.startswith((".", "/", "~")) or base.count("/") != 1 or Path(base).is_dir()


def local_files(base: str) -> list[str]:
    """The files of a local base, sorted; raises ModelError where there is no such folder or it is no model."""
    folder = Path(base).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f'there is no folder "{base}"',
            where="model.base",
            fix="Give a folder in Hugging Face format, a hub id such as mlx-community/gemma-2-2b-it-4bit, or demo",
        )
    small = sorted(str(path) for pattern in SMALL for path in folder.glob(pattern))
    weights = sorted(str(path) for path in folder.glob(WEIGHTS[0]))
    if not (folder / "config.json").is_file() or not weights:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        raise ModelError(
            "this folder holds no model in Hugging Face format: it needs config.json and *.safetensors"
            + (" (pickled weights are not loaded: they can run code)" if pickled else ""),
            where=base,
            fix="Convert it with transformers' save_pretrained, or name another base",
        )
    return small + weights


def write_manifest(
    path: StrPath, model: BaseConfig, folder: str, *, patterns: tuple[str, ...], commit: str | None = None
) -> ModelManifest:
    """Describe the files of `folder` that match `patterns` by size and SHA-256, and write that to `path`.

    The files stay in `folder`. Raises ModelError for what cannot be trusted in them.
    """
    root = Path(folder).expanduser()
    names = sorted({found.name for pattern in patterns for found in root.glob(pattern)})
    untrusted_files.check(root, names)
    quantized = msgspec.convert(model.quantize, QuantizeRecord, from_attributes=True) if model.quantize else None
    sizes = {name: (root / name).stat().st_size for name in names}
    hashed = ByteProgress("hashing", sum(sizes.values()))
    manifest = ModelManifest(
        base=model.base,
        revision=None if model.base == "demo" or is_local(model.base) else model.revision,
        commit=commit,
        folder=folder,
        quantize=quantized,
        files={name: ModelFile(bytes=size, sha256=sha256(root / name, hashed.add)) for name, size in sizes.items()},
    )
    write_json(path, manifest)
    return manifest


def read_as(manifest: ModelManifest, otherwise: ReadAs) -> ReadAs:
    """What to read a base with: as its experiment was chosen with it, else `otherwise`."""
    return manifest.read_as or otherwise


def read_manifest(path: StrPath) -> ModelManifest:
    """The manifest, after a check that every file is there in its full size."""
    manifest = read_json(path, ModelManifest)
    folder = Path(manifest.folder).expanduser()
    for name, known in manifest.files.items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != known.bytes:
            raise ModelError(
                f"{name} is missing" if size is None else f"{name} has {size} bytes instead of {known.bytes}",
                where=str(folder),
                why="The base model changed or is damaged since it was checked",
                fix=f"Restore the file, or delete {path} to take the folder as it is now",
            )
    return manifest


def declared_context_length(folder: Path) -> int | None:
    """How many tokens a model can attend to, by its config.json; None if that does not say."""
    config = read_json(folder / "config.json")
    for section in (config, config.get("text_config") or {}):
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            if isinstance(section.get(name), int):
                return int(section[name])
    return None


# mlx-community's Gemma 3 comes as a model of text and pictures: its text weights are called `language_model.*` and its
# settings stand in `text_config`, sparsely, because the wrapper has defaults of its own. The text part is trained only,
# and a folder with the wrapper's configuration but without its picture weights loads nowhere else, so the text model is
# treated as a model of its own.
WRAPPER_PREFIX = "language_model."
GEMMA3_DEFAULTS = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "tie_word_embeddings": True,
}
"""What the wrapper takes where text_config says nothing: transformers' Gemma3TextConfig, mlx-lm's gemma3.py."""
WRAPPER_KEYS = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "quantization", "quantization_config")

EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


def is_mixture(config: Mapping[str, object]) -> bool:
    """Whether a config.json is that of a mixture of experts."""
    counts = (config.get(key) for key in EXPERT_COUNTS)
    return any(isinstance(count, int) and count > 1 for count in counts)


def stored_dtype(config: Mapping[str, object]) -> str | None:
    """The number format of the weights that a config.json names, by either of its keys; None where it names none."""
    named = config.get("torch_dtype") or config.get("dtype")
    return str(named) if named else None


NF4 = "nf4"


def foreign_format(config: Mapping[str, object]) -> str | None:
    """The format, in words, of a base that another library than MLX has quantized; None for every other base.

    It is `NF4` where bitsandbytes holds a weight in four bits and the scales of its blocks as floats, which is what
    this project writes and reads too. With double quantization, as most such bases have, the scales are bytes of a
    code of their own.
    """
    settings = config.get("quantization_config")
    if not isinstance(settings, Mapping):
        return None
    method, in_four, in_eight = (settings.get(key) for key in ("quant_method", "load_in_4bit", "load_in_8bit"))
    if not (method or in_four or in_eight):  # MLX names no method
        return None
    if method not in (None, "bitsandbytes"):
        return str(method)
    if in_eight or not in_four:
        return "8 bits of bitsandbytes"
    kind, storage = settings.get("bnb_4bit_quant_type", "fp4"), settings.get("bnb_4bit_quant_storage", "uint8")
    if kind != NF4:
        return f"{kind} of bitsandbytes"
    if settings.get("bnb_4bit_use_double_quant"):
        return "nf4 of bitsandbytes with double quantization"
    return NF4 if storage == "uint8" else f"nf4 of bitsandbytes stored as {storage}"


def is_wrapped(config: Mapping[str, object]) -> bool:
    """Whether a config.json is that of a Gemma 3 of text and pictures."""
    return config.get("model_type") == "gemma3" and "text_config" in config


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config.json of the text model alone; one that is not wrapped is returned as it is."""
    if not is_wrapped(config):
        return config
    shared = {key: config[key] for key in WRAPPER_KEYS if key in config}
    inner = GEMMA3_DEFAULTS | {"vocab_size": 262208} | config["text_config"] | shared
    return inner | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
