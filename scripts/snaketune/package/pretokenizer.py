"""The name that llama.cpp has for a BPE tokenizer's way of splitting text before it merges.

The converter knows published tokenizers by a hash over token ids, so a vocabulary of one's own is never in its table.
What llama.cpp needs is only the rule by which text is split, and tokenizer.json states it: a name is given here only
where that statement is exactly the rule that llama.cpp has under the name. Anything else stays the converter's error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snaketune.files import StrPath

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
QWEN2 = CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL


def pretokenizer(folder: StrPath) -> str | None:
    """llama.cpp's name for the rule in the folder's tokenizer.json, or None where no name fits exactly."""
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        return None
    stated = json.loads(path.read_text(encoding="utf-8"))
    model, rule = stated["model"], stated.get("pre_tokenizer") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        return None
    if (stated.get("normalizer") or {}).get("type") not in (None, "NFC"):
        return None
    steps = rule["pretokenizers"] if rule.get("type") == "Sequence" else [rule]
    return _named(steps, bool(model.get("ignore_merges")))


def _named(steps: list[dict[str, Any]], whole_words_first: bool) -> str | None:
    kinds = [step.get("type") for step in steps]
    last = steps[-1]
    if kinds[-1] != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if kinds == ["ByteLevel"] and last.get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and last.get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not last.get("use_regex", True):
        split = steps[0]
        if split.get("behavior") != "Isolated" or split.get("invert"):
            return None
        pattern = split["pattern"].get("Regex")
        if pattern == QWEN2 and not whole_words_first:
            return "qwen2"
        if pattern == LLAMA3:
            # llama.cpp looks whole words up before it merges under the one name, and not under the other
            return "llama-bpe" if whole_words_first else "dbrx"
    return None
