"""What llama.cpp's pinned converter can make into a GGUF, read from its source without running it.

The converter knows published tokenizers by a hash over token ids, so a vocabulary of one's own is never in its table.
What llama.cpp needs is only the rule by which text is split before merging, and tokenizer.json states it:
`pretokenizer` gives a name only where that statement is exactly the rule that llama.cpp has under the name. Anything
else stays the converter's error.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from snaketune.errors import ModelError, ResourceError
from snaketune.files import StrPath, read_json

LLAMA_CPP = Path(__file__).resolve().parents[4] / "vendor" / "llama.cpp"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
QWEN2 = CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL


def check_tokenizer(folder: StrPath) -> None:
    """Raise ModelError if the pinned converter does not know how the tokenizer of the model in `folder` splits text.

    Reads the tokenizer only, without torch, so that a run can be refused before it trains.
    """
    if _needs_hash(Path(folder)) and pretokenizer(folder) is None and _hash(Path(folder)) not in tokenizer_hashes():
        raise ModelError(
            "llama.cpp's converter does not know how this model's tokenizer splits text",
            where=str(folder),
            why="The trained model could not be made into a GGUF file that reads text as it was trained",
            fix="Choose another base, or a newer llama.cpp",
        )


def _needs_hash(folder: Path) -> bool:
    """Whether the tokenizer is of the byte-level BPE kind, which the converter knows by a hash."""
    path = folder / "tokenizer.json"
    if (folder / "tokenizer.model").is_file() or not path.is_file():
        return False
    model = read_json(path)["model"]
    return model.get("type") == "BPE" and not model.get("byte_fallback")


def _hash(folder: Path) -> str:
    """The hash by which the converter knows a tokenizer: SHA-256 over the ids of its own check text."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder, local_files_only=True).encode(_check_text())
    return hashlib.sha256(str(ids).encode()).hexdigest()


@functools.cache
def architecture_names() -> frozenset[str]:
    """The text architectures that the pinned converter has."""
    return architectures_in(LLAMA_CPP)


def architectures_in(llama_cpp: Path) -> frozenset[str]:
    """The text architectures that a version's converter has, read from its source without running it."""
    tree = ast.parse((llama_cpp / "conversion" / "__init__.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "TEXT_MODEL_MAP" and node.value:
            return frozenset(ast.literal_eval(node.value))
    raise ResourceError("llama.cpp's converter is not the one this version was made for", where=str(llama_cpp))


@functools.cache
def _hash_function() -> ast.FunctionDef:
    tree = ast.parse((LLAMA_CPP / "conversion" / "base.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "get_vocab_base_pre":
            return node
    raise ResourceError("llama.cpp's converter is not the one this version was made for", where=str(LLAMA_CPP))


@functools.cache
def tokenizer_hashes() -> frozenset[str]:
    """The tokenizer hashes in the converter's table."""
    constants = (node.value for node in ast.walk(_hash_function()) if isinstance(node, ast.Constant))
    return frozenset(value for value in constants if isinstance(value, str) and len(value) == 64)


def _check_text() -> str:
    for node in ast.walk(_hash_function()):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "chktxt":
            return ast.literal_eval(node.value)
    raise ResourceError("llama.cpp's converter is not the one this version was made for", where=str(LLAMA_CPP))


def pretokenizer(folder: StrPath) -> str | None:
    """llama.cpp's name for the rule in the folder's tokenizer.json, or None where no name fits exactly."""
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        return None
    tokenizer_json = json.loads(path.read_text(encoding="utf-8"))
    model, rule = tokenizer_json["model"], tokenizer_json.get("pre_tokenizer") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        return None
    if (tokenizer_json.get("normalizer") or {}).get("type") not in (None, "NFC"):
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
