"""The questions with each artefact's answer side by side, scored one by one, and a fair choice where there are many."""

from __future__ import annotations

import functools
import html
import math
import random
from typing import Any

LONGEST = 4000  # characters of one text that the page shows
MOST = 600  # rows that the page shows
BUDGET = 3_000_000  # bytes of all rows together as HTML, so that the page stays under 4 MB


def side_by_side(
    predictions: dict[str, list[dict[str, Any]]],
    *,
    base: str | None,
    tuned: str | None,
    seed: int,
) -> dict[str, Any]:
    """Rows that every artefact answered, in the order of the predictions.

    predictions: artefact -> its prediction lines. Each row: {"id", "question", "reference", "category", "answers":
    {artefact: {"text", "score", "exact", "bits", "stopped"}}, "change"}; score is the answer's chrF++ (0 to 100), bits
    the reference's surprise per byte, change the score of `tuned` less that of `base` (of a row without answers, the
    bits of `base` less those of `tuned`).
    """
    by_id = {name: {str(line["id"]): line for line in lines} for name, lines in predictions.items() if lines}
    if not by_id:
        return {"rows": [], "total": 0, "base": base, "tuned": tuned}
    first = next(iter(by_id.values()))
    common = [row for row in first if all(row in lines for lines in by_id.values())]
    changes = [_change(*(_answer(by_id[it][row]) if it in by_id else None for it in (base, tuned))) for row in common]
    rows = []
    for i in _chosen(changes, seed):
        lines = {name: found[common[i]] for name, found in by_id.items()}
        some = lines[tuned] if tuned in lines else next(iter(lines.values()))
        rows.append(
            {
                "id": common[i],
                "question": shortened(some.get("prompt") or ""),
                "reference": shortened(some.get("reference") or ""),
                "category": some.get("category"),
                "answers": {name: _answer(line) for name, line in lines.items()},
                "change": changes[i],
            }
        )
    return {"rows": _fitting(rows), "total": len(common), "base": base, "tuned": tuned}


@functools.lru_cache(maxsize=8192)
def _chrf(answer: str, reference: str) -> float:
    """chrF++ of one answer, 0 to 100; of a very long one its first part."""
    import sacrebleu

    return sacrebleu.sentence_chrf(answer[:LONGEST], [reference[:LONGEST]], word_order=2).score


def unscored(predictions: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Questions without a reference answer: {"id", "question", "answers": {artefact: text}}."""
    rows: dict[str, dict[str, Any]] = {}
    for name, lines in predictions.items():
        for line in lines:
            row = rows.setdefault(
                str(line["id"]), {"id": line["id"], "question": shortened(line.get("prompt") or ""), "answers": {}}
            )
            row["answers"][name] = shortened(line.get("answer") or "")
    return list(rows.values())[:MOST]


def _answer(line: dict[str, Any]) -> dict[str, Any]:
    text = line.get("answer")
    reference = line.get("reference") or ""
    bits = None
    if line.get("logprob") is not None and line.get("bytes"):
        bits = round(-line["logprob"] / math.log(2) / line["bytes"], 4)
    return {
        "text": None if text is None else shortened(text),
        "score": None if text is None or not reference else round(_chrf(text, reference), 2),
        "exact": None if text is None or not reference else text.strip() == reference.strip(),
        "bits": bits,
        "stopped": line.get("stopped"),
    }


def _change(base: dict[str, Any] | None, tuned: dict[str, Any] | None) -> float | None:
    if base is None or tuned is None:
        return None
    if base["score"] is not None and tuned["score"] is not None:
        return round(tuned["score"] - base["score"], 2)
    if base["bits"] is not None and tuned["bits"] is not None:
        return round(base["bits"] - tuned["bits"], 4)
    return None


def shortened(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest} more characters)"


def _chosen(changes: list[float | None], seed: int) -> list[int]:
    """All rows if they are few; else a third each of the most worsened, the most improved, and a seeded rest."""
    if len(changes) <= MOST:
        return list(range(len(changes)))
    third = MOST // 3
    order = sorted(range(len(changes)), key=lambda i: changes[i] or 0.0)
    kept = set(order[:third]) | set(order[-third:])
    rest = [i for i in range(len(changes)) if i not in kept]
    return sorted(kept | set(random.Random(seed).sample(rest, MOST - len(kept))))


def _fitting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the rows, from the first, as the page's budget takes."""
    kept, spent = [], 0
    for row in rows:
        texts = [row["reference"], row["question"]]
        texts += [answer["text"] or "" for answer in row["answers"].values()]
        spent += sum(len(html.escape(text).encode()) for text in texts) + 1000 + 400 * len(row["answers"])
        if spent > BUDGET:
            break
        kept.append(row)
    return kept
