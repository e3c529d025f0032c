"""Writes made-up instruction rows for the data benchmark: python benchmarks/data/generate.py ROWS FILE.

About 530 bytes a row. Of a hundred rows, three are exact copies of an earlier row and three near copies, with one word
in fifty changed. Words are drawn from 20,000 made-up ones as often as words are in real text (Zipf's law), so that
shingles repeat as they do there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

WORDS = 20_000
SYLLABLES = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "or", "us")]


def vocabulary(random: np.random.Generator) -> list[str]:
    """WORDS different words of one to four syllables."""
    found: dict[str, None] = {}
    while len(found) < WORDS:
        found["".join(random.choice(SYLLABLES, random.integers(1, 5)))] = None
    return list(found)


def write(rows: int, path: Path, seed: int = 1) -> None:
    """Write that many rows; the same rows for the same seed."""
    random = np.random.default_rng(seed)
    words = np.array(vocabulary(random), dtype=object)
    shares = 1 / np.arange(10, WORDS + 10)
    shares /= shares.sum()
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    with open(path, "w", encoding="utf-8") as out:
        for start in range(0, rows, 10_000):
            count = min(10_000, rows - start)
            pool = random.choice(WORDS, 90 * count, p=shares)
            asked, answered = random.integers(8, 30, count), random.integers(10, 90, count)
            kinds = random.random(count)
            at = 0
            for row in range(count):
                if kinds[row] < 0.03 and kept:
                    prompt, answer = kept[random.integers(len(kept))]
                elif kinds[row] < 0.06 and kept:
                    prompt, answer = (part.copy() for part in kept[random.integers(len(kept))])
                    for place in random.integers(len(answer), size=max(1, len(answer) // 50)):
                        answer[place] = random.integers(WORDS)
                else:
                    prompt = pool[at : at + asked[row]]
                    answer = pool[at + asked[row] : at + asked[row] + answered[row]]
                    at += asked[row] + answered[row]
                    if len(kept) < 100_000:
                        kept.append((prompt, answer))
                value = {
                    "instruction": " ".join(words[prompt]) + "?",
                    "input": "",
                    "output": " ".join(words[answer]) + ".",
                }
                out.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    write(int(sys.argv[1]), Path(sys.argv[2]))
