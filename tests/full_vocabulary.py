"""Tokenizers with as many tokens as real ones have.

A small one of the family's kind (`tests/families.py`) is filled up with tokens that are each made of two others, by
merges that come after all that were learnt, so that texts are split much as before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import families
import tiny_tokenizers

LLAMA3_RESERVED = 256  # special tokens at the end of Llama 3's vocabulary
QWEN_PLAIN = 151643  # tokens before Qwen's special ones; the end of its embedding is unused


def write(folder: Path, family: str, size: int) -> dict[str, Any]:
    """Write a tokenizer of `size` tokens of the family's kind; returns what config.json says of it."""
    kind = families.FAMILIES[family]
    kind.tokenizer(folder)
    path = folder / "tokenizer.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    if (folder / "tokenizer.model").is_file():
        _fill_pieces(folder, stated, size)
    else:
        reserved = LLAMA3_RESERVED if family.startswith("llama") else size - QWEN_PLAIN
        _fill_byte_pairs(stated, size - reserved)
        if family.startswith("llama"):
            _reserve(stated, size)
    path.write_text(json.dumps(stated, ensure_ascii=False), encoding="utf-8")
    ids = {token["content"]: token["id"] for token in stated["added_tokens"]}
    begin = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["bos_token"]
    return {"eos_token_id": ids[kind.stop], "bos_token_id": ids.get(begin)}


def _fill_byte_pairs(stated: dict[str, Any], size: int) -> None:
    """Fill a byte-level vocabulary up to `size` tokens; the special ones come behind them."""
    special = {token["content"] for token in stated["added_tokens"]}
    vocabulary = {token: i for token, i in stated["model"]["vocab"].items() if token not in special}
    merges = stated["model"]["merges"]
    for left, right in _new_pairs(list(vocabulary), set(vocabulary)):
        if len(vocabulary) == size:
            break
        vocabulary[left + right] = len(vocabulary)
        merges.append([left, right])
    stated["model"]["vocab"] = vocabulary
    moved = {token["content"]: size + number for number, token in enumerate(stated["added_tokens"])}
    for token in stated["added_tokens"]:
        token["id"] = moved[token["content"]]
    _renumber(stated.get("post_processor"), moved)


def _reserve(stated: dict[str, Any], size: int) -> None:
    """Add reserved special tokens up to `size`, as Llama 3 has them."""
    listed = stated["added_tokens"]
    for number in range(listed[-1]["id"] + 1, size):
        listed.append(listed[-1] | {"id": number, "content": f"<|reserved_special_token_{size - number}|>"})


def _renumber(part: Any, moved: dict[str, int]) -> None:
    """Give the special tokens of a post-processor their new ids."""
    if not isinstance(part, dict):
        return
    for one in part.get("processors", []):
        _renumber(one, moved)
    for name, known in part.get("special_tokens", {}).items():
        known["ids"] = [moved[name]]


def _fill_pieces(folder: Path, stated: dict[str, Any], size: int) -> None:
    """Fill a SentencePiece vocabulary up to `size` pieces, in tokenizer.model and in tokenizer.json."""
    from sentencepiece import sentencepiece_model_pb2 as format_of

    model = format_of.ModelProto()
    model.ParseFromString((folder / "tokenizer.model").read_bytes())
    vocabulary = stated["model"]["vocab"]
    plain = [piece.piece for piece in model.pieces if piece.type == piece.NORMAL]
    lowest = min(piece.score for piece in model.pieces)
    for left, right in _new_pairs(plain, set(vocabulary)):
        if len(vocabulary) == size:
            break
        vocabulary[left + right] = len(vocabulary)
        lowest -= 1
        model.pieces.add(piece=left + right, score=lowest)
    # SentencePiece, and llama.cpp after it, makes a piece of any two neighbors, not only of the two that it came from
    stated["model"]["merges"] = tiny_tokenizers.merges_of(
        list(vocabulary), {token["content"] for token in stated["added_tokens"]}
    )
    model.trainer_spec.vocab_size = size
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())


def _new_pairs(tokens: list[str], known: set[str]) -> Iterator[tuple[str, str]]:
    """Pairs of tokens whose joined text is new, first of the longest learnt ones, then of those and what they made."""
    parts = [token for token in reversed(tokens) if len(token) > 1]
    made = dict.fromkeys(parts)
    lefts = list(parts)
    for left in lefts:
        for right in parts:
            joined = left + right
            if joined not in known and joined not in made:
                made[joined] = None
                lefts.append(joined)
                yield left, right
