"""Rows and answers of a run by hand: words that are to be put into capitals."""

from __future__ import annotations

import random
from typing import Any

WORDS = "river stone morning letter window garden winter bridge paper lantern harbor copper".split()


def record(number: int, source: str = "data/rows.jsonl") -> dict[str, Any]:
    words = " ".join(random.Random(number).sample(WORDS, 5))
    return {
        "id": f"row-{number:03d}",
        "messages": [
            {"role": "user", "content": f"Put into capitals, number {number}: {words}"},
            {"role": "assistant", "content": words.upper()},
        ],
        "source": source,
        "line": number + 1,
        "category": ["odd", "even"][number % 2],
    }


def prediction(row: dict[str, Any], answer: str) -> dict[str, Any]:
    question, reference = (turn["content"] for turn in row["messages"])
    return {
        "id": row["id"],
        "prompt": question,
        "category": row["category"],
        "answer": answer,
        "new_tokens": 4,
        "stopped": True,
        "reference": reference,
    }
