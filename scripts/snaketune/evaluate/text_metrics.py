"""Words of an answer, whatever its language, and what two texts have of them in common."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

# Scripts that are written without spaces: each of their characters counts as a word.
SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(f"[{SPACELESS}]|[^\\W_{SPACELESS}]+(?:[\\u0300-\\u036f]+[^\\W_{SPACELESS}]*)*")
SIGNATURE = "words:nfkc,casefold,no-punctuation"


def words(text: str) -> list[str]:
    """The words of a text without case, punctuation, or differences of Unicode compatibility."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the words of an answer, counted with repetition and without order; 1 where both are empty."""
    if not answer and not reference:
        return 1.0
    shared = (Counter(answer) & Counter(reference)).total()
    return 2 * shared / (len(answer) + len(reference))


def rouge_l(answer: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the longest common subsequence (Lin 2004, with precision and recall weighing the same)."""
    if not answer and not reference:
        return 1.0
    return 2 * common_subsequence(answer, reference) / (len(answer) + len(reference))


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö 2004): one integer operation a word of `other`."""
    positions: dict[str, int] = {}
    for i, word in enumerate(one):
        positions[word] = positions.get(word, 0) | 1 << i
    everything = (1 << len(one)) - 1
    row = everything
    for word in other:
        matched = row & positions.get(word, 0)
        row = ((row + matched) | (row - matched)) & everything
    return len(one) - row.bit_count()


def repetition(answer: Sequence[str], order: int = 4) -> float:
    """Share of an answer's runs of `order` words that had occurred before in it; 0 for a shorter answer."""
    runs = [tuple(answer[i : i + order]) for i in range(len(answer) - order + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
