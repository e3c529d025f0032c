"""The fused model: the folder that everything after the training reads, and the manifest that names its bytes.

mlx-community's Gemma 3 comes as a model of text and pictures: its text weights are called `language_model.*` and its
settings stand in `text_config`, sparsely, because the wrapper has defaults of its own. mlx-lm trains the text part
only, and a folder with the wrapper's configuration but without its picture weights loads nowhere else, so the text
model is written as a model of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snaketune import files
from snaketune.contracts.package import FileFacts, FusedManifest, Rounding
from snaketune.engines import get_exporter
from snaketune.files import StrPath
from snaketune.package.tokenizer_files import write_model_files
from snaketune.tokens.chat_template import Renderer

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


def fuse_model(
    model: StrPath, adapter: StrPath, folder: StrPath, manifest: StrPath, *, chat_template: str | None, dtype: str
) -> FusedManifest:
    """Merge `adapter` (its adapters.safetensors) into the base of the manifest `model`.

    chat_template, dtype: of the configuration's section `model`, for a base whose manifest does not say. Writes the
    folder whole or not at all, then the manifest.
    """
    base = files.read_json(model)
    options = {"chat_template": chat_template, "dtype": dtype} | base.get("read_as", {})
    renderer = Renderer(base["folder"], options["chat_template"])
    target = Path(folder)
    config = files.read_json(Path(base["folder"]) / "config.json")
    prefix = WRAPPER_PREFIX if is_wrapped(config) else ""
    with files.atomic_folder(target) as temporary:
        written = get_exporter().fuse(
            base["folder"],
            Path(adapter).parent,
            temporary,
            dtype=options["dtype"],
            drop_prefix=prefix,
        )
        names = written.files + write_model_files(
            base["folder"],
            temporary,
            config=text_config(config),
            dtype=written.dtype,
            template=renderer.template,
            stop_ids=renderer.stop_ids,
        )
    record = FusedManifest(
        base=base["base"],
        revision=base.get("revision"),
        folder=str(folder),
        dtype=written.dtype,
        gguf_dtype=least_rounding(written.rounding),
        rounding=written.rounding,
        adapter_sha256=files.sha256(adapter),
        drop_prefix=prefix,
        parameters=written.parameters,
        template=options["chat_template"],
        stop_ids=sorted(renderer.stop_ids),
        files={name: _facts(target / name, written.digests.get(name)) for name in sorted(names)},
    )
    files.write_json(manifest, record)
    return record


def _facts(path: Path, digest: str | None) -> FileFacts:
    return FileFacts(bytes=path.stat().st_size, sha256=digest or files.sha256(path))


def least_rounding(rounding: dict[str, Rounding]) -> str:
    """The 16-bit format that loses least of the merged weights, of those that hold the largest one; else float16."""
    found = {dtype: one.error for dtype, one in rounding.items() if one.in_range}
    return min(found, key=lambda dtype: found[dtype], default="float16")


def is_wrapped(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a Gemma 3 of text and pictures."""
    return config.get("model_type") == "gemma3" and "text_config" in config


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config.json of the text model alone; one that is not wrapped is returned as it is."""
    if not is_wrapped(config):
        return config
    shared = {key: config[key] for key in WRAPPER_KEYS if key in config}
    inner = GEMMA3_DEFAULTS | {"vocab_size": 262208} | config["text_config"] | shared
    return inner | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
