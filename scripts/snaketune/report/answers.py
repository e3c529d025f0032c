"""The questions with each artefact's answer side by side, scored one by one, and a fair choice where there are many."""

from __future__ import annotations

import math
import random
from typing import Any

LONGEST = 4000  # characters of one text that the page shows
MOST = 600  # rows that the page shows
BUDGET = 1_800_000  # characters of all texts together, so that the page stays under 4 MB


def side_by_side(
    predictions: dict[str, list[dict[str, Any]]],
    records: list[dict[str, Any]],
    *,
    base: str | None,
    tuned: str | None,
    seed: int,
) -> dict[str, Any]:
    """Rows that every artefact answered, in the order of the test split.

    predictions: artefact -> its prediction lines; records: the test split, for the question as the person wrote it.
    Each row: {"id", "question" (turns), "reference", "category", "answers": {artefact: {"text", "score", "bits",
    "stopped"}}, "change"}; score is the answer's chrF++ (0 to 100), bits the reference's surprise per byte, change
    the score of `tuned` less that of `base` (in bits, lower taken as better, where a row has no answer).
    """
    by_id = {name: {str(line["id"]): line for line in lines} for name, lines in predictions.items() if lines}
    if not by_id:
        return {"rows": [], "total": 0, "base": base, "tuned": tuned}
    asked = {str(record["id"]): record for record in records}
    first = next(iter(by_id.values()))
    common = [row for row in first if all(row in lines for lines in by_id.values())]
    rows = [_row(row, by_id, asked.get(row), base, tuned) for row in common]
    kept = _fitting(_chosen(rows, seed))
    return {"rows": kept, "total": len(rows), "base": base, "tuned": tuned}


def _row(
    row: str,
    by_id: dict[str, dict[str, dict[str, Any]]],
    record: dict[str, Any] | None,
    base: str | None,
    tuned: str | None,
) -> dict[str, Any]:
    lines = {name: found[row] for name, found in by_id.items()}
    some = next(iter(lines.values()))
    answers = {name: _answer(line) for name, line in lines.items()}
    return {
        "id": row,
        "question": _question(record, some),
        "reference": shortened(some.get("reference") or ""),
        "category": some.get("category"),
        "answers": answers,
        "change": _change(answers.get(base or ""), answers.get(tuned or "")),
    }


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


def _chrf(answer: str, reference: str) -> float:
    import sacrebleu

    return sacrebleu.sentence_chrf(answer, [reference], word_order=2).score


def _change(base: dict[str, Any] | None, tuned: dict[str, Any] | None) -> float | None:
    if base is None or tuned is None:
        return None
    if base["score"] is not None and tuned["score"] is not None:
        return round(tuned["score"] - base["score"], 2)
    if base["bits"] is not None and tuned["bits"] is not None:
        return round(base["bits"] - tuned["bits"], 4)
    return None


def _question(record: dict[str, Any] | None, line: dict[str, Any]) -> list[dict[str, str]]:
    """The turns before the answer, as the person wrote them; the rendered prompt where the record is not at hand."""
    if record and record.get("messages"):
        turns = list(record["messages"])
        while turns and turns[-1]["role"] == "assistant":
            turns.pop()
        return [{"role": turn["role"], "text": shortened(turn.get("content") or "")} for turn in turns]
    if line.get("prompt"):
        return [{"role": "user", "text": shortened(line["prompt"])}]
    return []


def shortened(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest} more characters)"


def _chosen(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """All rows if they are few; else a third each of the most improved, the most worsened, and a seeded rest."""
    if len(rows) <= MOST:
        return rows
    third = MOST // 3
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["change"] is None, rows[i]["change"] or 0.0))
    kept = set(order[:third]) | set(order[-third:])
    rest = [i for i in range(len(rows)) if i not in kept]
    kept |= set(random.Random(seed).sample(rest, MOST - len(kept)))
    return [row for i, row in enumerate(rows) if i in kept]


def _fitting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the rows, from the first, as the page's budget of text takes."""
    kept, spent = [], 0
    for row in rows:
        texts = [row["reference"], *(turn["text"] for turn in row["question"])]
        texts += [answer["text"] or "" for answer in row["answers"].values()]
        spent += sum(len(text.encode()) for text in texts) + 400 * len(row["answers"])
        if spent > BUDGET:
            break
        kept.append(row)
    return kept
