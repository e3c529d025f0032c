"""Everything in a fused folder that is not a weight: configuration, tokenizer, chat template, generation settings.

The tokenizer's files are the base's own, copied, because saving them anew loses what other programs need: which
tokens are special (`added_tokens_decoder`), `tokenizer.model`, and a class name that transformers 4 knows and that
makes it and transformers 5 read tokenizer.json as it is.

Models that were saved by a recent mlx-lm or transformers come without the tokenizer.model that a SentencePiece
tokenizer needs in llama.cpp. Its converter then refuses Gemma, and for Llama writes one score for all pieces, so that
words are put together in another order than in training. The order is in tokenizer.json: a piece's score is the rank
of the first merge that makes it. So tokenizer.model is made again from tokenizer.json.

The parity checks say whether a GGUF reads text exactly as the tokenizer that the model was trained with.
"""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from snaketune.contracts.data import Message
from snaketune.contracts.package import TokenDifference, TokenParity
from snaketune.engines.interface import GGUFModel
from snaketune.files import StrPath, read_json, write_json
from snaketune.package.modelfile import ChatFormat
from snaketune.tokens.chat_template import Renderer

PROBES = (
    "Hello  world\n\n 12345 it's WE'LL naïve café \t x",
    " a space first",
    "two spaces last  ",
    "The capital of France is Paris.",
    "1 12 123 1234 12345 3.14159 1,000,000 2026-11-21",
    "数字 123 и текст\r\n  конец ",
    "line one\r\nline two\r\n\r\nline four",
    "Hawaiʻi, Kauaʻi, ʻōlelo, maʻi",
    "🚀 emoji 👩‍👩‍👧 and 🇩🇪",
    "e\u0301 (combining) \u00e9 (composed) \ufb01 ligature",
    "a<b> {x: 1}!!!...  [INST] <<SYS>> ###",
    "def f(x):\n\treturn x ** 2  # tab\n",
    "\n",
    "\n\n\n",
    "\u200bzero width\u00a0no-break",
    "ALL CAPS camelCase snake_case kebab-case",
)
MAX_EXAMPLES = 5


def probe_texts(renderer: Renderer) -> list[str]:
    """The fixed texts, and each of the model's special tokens alone and inside a sentence."""
    special = [token for token in renderer.special_tokens if token.strip()][:64]
    return [*PROBES, *special, *(f"before{token}after {token} end" for token in special)]


def token_differences(gguf: GGUFModel, renderer: Renderer, texts: Sequence[str]) -> TokenParity:
    """Compare the ids that the GGUF and the model's tokenizer make of texts.

    Texts go in without a begin token, special tokens by their names. llama.cpp does not compose characters (e and a
    combining acute stay two), so where the tokenizer does, composed text is compared, and `composed` counts the texts
    that were not composed already.
    """
    normalizer = renderer.tokenizer.backend_tokenizer.normalizer
    composes = normalizer is not None and "NFC" in str(normalizer)
    composed = [unicodedata.normalize("NFC", text) if composes else text for text in texts]
    examples: list[TokenDifference] = []
    different = 0
    for text in composed:
        expected = renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
        found = gguf.tokenize(text, add_bos=False)
        if list(found) != list(expected):
            different += 1
            if len(examples) < MAX_EXAMPLES:
                examples.append(TokenDifference(text=text[:80], expected=list(expected)[:24], found=list(found)[:24]))
    changed = sum(before != after for before, after in zip(texts, composed, strict=True))
    return TokenParity(texts=len(texts), differences=different, composed=changed, examples=examples)


def bos_token_parity(gguf: GGUFModel, renderer: Renderer) -> tuple[int | None, int | None]:
    """The id that the tokenizer and that llama.cpp puts before a text, or None; a wrong one shifts every answer."""
    expected = renderer.tokenizer("a")["input_ids"][:1] == [renderer.tokenizer.bos_token_id]
    found = gguf.tokenize("a", add_bos=True)[:1] == [gguf.bos_token()]
    return renderer.tokenizer.bos_token_id if expected else None, gguf.bos_token() if found else None


def template_differences(template: str | None, renderer: Renderer, conversations: Sequence[list[Message]]) -> int:
    """How many conversations the chat template in a GGUF renders differently from the one that was trained with."""
    if not conversations:
        return 0
    if template is None:
        return len(conversations)
    different = 0
    for messages in conversations:
        try:
            found = renderer.conversation_text(messages, template=template)
        except (jinja2.TemplateError, TypeError, ValueError):
            found = None
        different += found != renderer.conversation_text(messages)
    return different


def format_differences(
    found: ChatFormat | None, renderer: Renderer, conversations: Sequence[list[Message]]
) -> int | None:
    """How many prompts the Modelfile's template renders differently from the renderer; None without a template.

    Leading and trailing spaces of a message are left out: Go's templates cannot strip them, Jinja's often do.
    """
    if found is None:
        return None
    begin = renderer.tokenizer.bos_token or ""
    different = 0
    for messages in conversations:
        turns: list[Message] = [{**message, "content": (message["content"] or "").strip()} for message in messages]
        while turns and turns[-1]["role"] != "user":
            turns.pop()
        if turns:
            different += found.render(turns).removeprefix(begin) != renderer.prompt_text(turns).removeprefix(begin)
    return different


def missing_stop_tokens(gguf: GGUFModel, renderer: Renderer) -> list[str]:
    """The tokens with which the template ends an answer and at which llama.cpp does not stop."""
    if not renderer.template:
        return []
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row = renderer.conversation(turns)
    token = row.ids[max(i for i, hit in enumerate(row.trained) if hit)]
    if token not in renderer.stop_ids:
        return []
    return [] if gguf.ends_generation(token) else [renderer.tokenizer.convert_ids_to_tokens(token)]


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


def write_model_files(
    base: StrPath, target: StrPath, *, config: dict[str, Any], dtype: str, template: str | None, stop_ids: Iterable[int]
) -> list[str]:
    """Write config.json, the tokenizer and generation_config.json into `target`; returns the files' names.

    config: the base's config.json; dtype: of the weights that were written; template: the Jinja text in use, or None;
    stop_ids: the ids at which an answer ends.
    """
    source, folder = Path(base), Path(target)
    names = [name for name in COPIED if (source / name).is_file()]
    for name in names:
        shutil.copyfile(source / name, folder / name)
    if "tokenizer.json" in names and "tokenizer.model" not in names:
        tokenizer_json = read_json(source / "tokenizer.json")
        if is_sentencepiece(tokenizer_json):
            (folder / "tokenizer.model").write_bytes(sentencepiece_model(tokenizer_json))
            names.append("tokenizer.model")
    write_json(folder / "config.json", _plain_config(config, dtype))
    write_json(folder / "tokenizer_config.json", tokenizer_config(source, template))
    write_json(folder / "generation_config.json", _generation(source, sorted(stop_ids)))
    return [*names, "config.json", "tokenizer_config.json", "generation_config.json"]


def tokenizer_config(base: StrPath, template: str | None) -> dict[str, Any]:
    """The base's tokenizer_config.json, readable by transformers 4 and 5, with the template in it.

    The template goes in here because every reader looks here, and into no second file that could say otherwise.
    """
    folder = Path(base)
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = read_json(path) if path.is_file() else {}
    tokenizer = folder / "tokenizer.json"
    if "added_tokens_decoder" not in config and tokenizer.is_file():
        added = read_json(tokenizer).get("added_tokens", [])
        config["added_tokens_decoder"] = {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added
        }
    if tokenizer.is_file():  # the class that takes tokenizer.json as it is, as tokens/chat_template.py does
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in LOADER_ONLY:
        config.pop(key, None)
    config.pop("chat_template", None)
    if template:
        config["chat_template"] = template
    return config


def _plain_config(config: dict[str, Any], dtype: str) -> dict[str, Any]:
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
