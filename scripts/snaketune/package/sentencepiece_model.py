"""The tokenizer.model that a SentencePiece tokenizer needs in llama.cpp, made again from its tokenizer.json.

Models that were saved by a recent mlx-lm or transformers come without it. llama.cpp's converter then refuses Gemma, and
for Llama writes one score for all pieces, so that words are put together in another order than in training. The order
is in tokenizer.json: a piece's score is the rank of the first merge that makes it.
"""

from __future__ import annotations

from typing import Any

BPE = 2  # sentencepiece_model.proto: TrainerSpec.ModelType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # ModelProto.SentencePiece.Type


def is_sentencepiece(stated: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is a BPE with bytes to fall back on, which SentencePiece models become."""
    model = stated["model"]
    return model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def from_tokenizer_json(stated: dict[str, Any]) -> bytes:
    """The content of tokenizer.model for the parsed tokenizer.json of such a tokenizer."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = stated["model"]
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    added = {token["content"]: token["special"] for token in stated.get("added_tokens", [])}
    vocabulary = model["vocab"]
    made = proto.ModelProto()  # type: ignore[attr-defined]
    for piece, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        kind = _kind(piece, model.get("unk_token"), added)
        score = -float(ranks.get(piece, len(ranks) + number)) if kind == NORMAL else 0.0
        made.pieces.add(piece=piece, score=score, type=kind)
    made.trainer_spec.model_type = BPE
    made.trainer_spec.byte_fallback = True
    made.trainer_spec.vocab_size = len(vocabulary)
    made.trainer_spec.unk_id = vocabulary.get(model.get("unk_token"), 0)
    made.normalizer_spec.name = "identity"
    made.normalizer_spec.add_dummy_prefix = "prepend" in str(stated.get("normalizer"))
    made.normalizer_spec.remove_extra_whitespaces = False
    return made.SerializeToString(deterministic=True)


def _kind(piece: str, unknown: str | None, added: dict[str, bool]) -> int:
    if piece == unknown:
        return UNKNOWN
    if piece in added:
        return CONTROL if added[piece] else USER_DEFINED
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return BYTE
    return NORMAL
