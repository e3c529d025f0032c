"""Everything in a fused folder that is not a weight: configuration, tokenizer, chat template, generation settings.

The tokenizer's files are the base's own, copied, because saving them anew loses what other programs need: which
tokens are special (`added_tokens_decoder`), `tokenizer.model`, and a class name that transformers 4 knows and that
makes it and transformers 5 read tokenizer.json as it is.

Models that were saved by a recent mlx-lm or transformers come without the tokenizer.model that a SentencePiece
tokenizer needs in llama.cpp. Its converter then refuses Gemma, and for Llama writes one score for all pieces, so that
words are put together in another order than in training. The order is in tokenizer.json: a piece's score is the rank
of the first merge that makes it. So tokenizer.model is made again from tokenizer.json.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snaketune.errors import ModelError
from snaketune.files import StrPath, read_json, write_json
from snaketune.tokens.virtual_tokens import SETTINGS, in_tokenizer_json, names

COPIED = (
    "tokenizer.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "vocab.json",
    "LICENSE",
    "LICENSE.txt",
    "NOTICE",
)
LOADER_ONLY = ("is_local", "local_files_only", "backend", "processor_class")
QUANTIZED = ("quantization", "quantization_config")
BPE = 2  # sentencepiece_model.proto: TrainerSpec.ModelType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # ModelProto.SentencePiece.Type


@dataclass(frozen=True)
class RenderedBy:
    """How conversations become tokens: the Jinja text in use, or None; where answers end; prompt tuning's tokens."""

    template: str | None
    stop_ids: Collection[int]
    virtual_ids: range = range(0)


def write_model_files(
    base: StrPath,
    target: StrPath,
    *,
    config: Mapping[str, object],
    dtype: str,
    written: RenderedBy,
) -> list[str]:
    """Write config.json, the tokenizer and generation_config.json into `target`; returns the files' names.

    config: the base's config.json; dtype: of the weights that were written.
    """
    source, folder = Path(base), Path(target)
    names = [name for name in COPIED if (source / name).is_file()]
    for name in names:
        shutil.copyfile(source / name, folder / name)
    tokenizer_json = read_json(source / "tokenizer.json") if "tokenizer.json" in names else None
    if tokenizer_json and "tokenizer.model" not in names and is_sentencepiece(tokenizer_json):
        (folder / "tokenizer.model").write_bytes(sentencepiece_model(tokenizer_json))
        names.append("tokenizer.model")
    if written.virtual_ids:
        tokenizer_json = _with_virtual_tokens(tokenizer_json, written.virtual_ids, source)
        write_json(folder / "tokenizer.json", tokenizer_json)
    write_json(folder / "config.json", _plain_config(config, dtype))
    added = tokenizer_json.get("added_tokens", []) if tokenizer_json else None
    write_json(folder / "tokenizer_config.json", tokenizer_config(source, written, added))
    write_json(folder / "generation_config.json", _generation(source, sorted(written.stop_ids)))
    return [*names, "config.json", "tokenizer_config.json", "generation_config.json"]


def _with_virtual_tokens(tokenizer_json: Any, ids: range, source: Path) -> Any:
    """A tokenizer.json with the tokens of prompt tuning, which every reader of such a folder looks at."""
    if tokenizer_json is None:
        raise ModelError(
            "it has no tokenizer.json, to which the virtual tokens of prompt tuning could be added",
            where=str(source),
            fix="Add one (transformers' save_pretrained writes it), or set train.method to lora",
        )
    return in_tokenizer_json(tokenizer_json, ids)


def tokenizer_config(
    base: StrPath, written: RenderedBy, added_tokens: Sequence[Mapping[str, object]] | None
) -> dict[str, Any]:
    """The base's tokenizer_config.json, readable by transformers 4 and 5, with the template in it.

    added_tokens: of tokenizer.json, None where there is no such file. The template goes in here because every reader
    looks here, and into no second file that could say otherwise.
    """
    path = Path(base) / "tokenizer_config.json"
    config: dict[str, Any] = read_json(path) if path.is_file() else {}
    if added_tokens is not None:
        if "added_tokens_decoder" not in config:
            config["added_tokens_decoder"] = {
                str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added_tokens
            }
        for number, name in zip(written.virtual_ids, names(len(written.virtual_ids)), strict=True):
            config["added_tokens_decoder"][str(number)] = {"content": name} | SETTINGS
        # the class that takes tokenizer.json as it is, as tokens/chat_template.py does
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in LOADER_ONLY:
        config.pop(key, None)
    config.pop("chat_template", None)
    if written.template:
        config["chat_template"] = written.template
    return config


def _plain_config(config: Mapping[str, object], dtype: str) -> dict[str, object]:
    """The configuration of a model that is not quantized."""
    plain = {key: value for key, value in config.items() if key not in QUANTIZED}
    key = "dtype" if "dtype" in plain else "torch_dtype"
    plain[key] = dtype
    return plain


def _generation(base: Path, stop_ids: list[int]) -> dict[str, Any]:
    path = base / "generation_config.json"
    config: dict[str, Any] = read_json(path) if path.is_file() else {}
    if stop_ids:
        config["eos_token_id"] = stop_ids if len(stop_ids) > 1 else stop_ids[0]
    return config


def is_sentencepiece(tokenizer_json: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is a BPE with bytes to fall back on, which SentencePiece models become."""
    model = tokenizer_json["model"]
    return model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def sentencepiece_model(tokenizer_json: dict[str, Any]) -> bytes:
    """The content of tokenizer.model for the parsed tokenizer.json of such a tokenizer."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = tokenizer_json["model"]
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    added = {token["content"]: token["special"] for token in tokenizer_json.get("added_tokens", [])}
    vocabulary = model["vocab"]
    proto_model = proto.ModelProto()  # type: ignore[attr-defined]
    for piece, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        kind = _kind(piece, model.get("unk_token"), added)
        score = -float(ranks.get(piece, len(ranks) + number)) if kind == NORMAL else 0.0
        proto_model.pieces.add(piece=piece, score=score, type=kind)
    proto_model.trainer_spec.model_type = BPE
    proto_model.trainer_spec.byte_fallback = True
    proto_model.trainer_spec.vocab_size = len(vocabulary)
    proto_model.trainer_spec.unk_id = vocabulary.get(model.get("unk_token"), 0)
    proto_model.normalizer_spec.name = "identity"
    proto_model.normalizer_spec.add_dummy_prefix = "prepend" in str(tokenizer_json.get("normalizer"))
    proto_model.normalizer_spec.remove_extra_whitespaces = False
    return proto_model.SerializeToString(deterministic=True)


def _kind(piece: str, unknown: str | None, added: dict[str, bool]) -> int:
    if piece == unknown:
        return UNKNOWN
    if piece in added:
        return CONTROL if added[piece] else USER_DEFINED
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return BYTE
    return NORMAL
