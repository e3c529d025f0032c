"""The test rows with each variant's answer side by side, scored one by one, and a fair choice where there are many."""

from __future__ import annotations

import functools
import html
import math
import random
from collections.abc import Iterable, Mapping, Sequence

from snaketune.contracts.evaluate import Prediction
from snaketune.contracts.report import Answer, AnsweredRow, AnsweredRows, FreePrompt

LONGEST = 4000  # characters of one text that the page shows
MOST = 600  # rows that the page shows
BUDGET = 3_000_000  # bytes of all rows together as HTML, so that the page stays under 4 MB


def side_by_side(
    predictions: Mapping[str, Sequence[Prediction]],
    *,
    base: str | None,
    tuned: str | None,
    seed: int,
) -> AnsweredRows:
    """The rows that every variant answered, in the order of the predictions (variant -> its lines)."""
    by_id = {name: {line.id: line for line in lines} for name, lines in predictions.items() if lines}
    if not by_id:
        return AnsweredRows(rows=[], total=0, base=base, tuned=tuned)
    first = next(iter(by_id.values()))
    common = [row for row in first if all(row in lines for lines in by_id.values())]
    both = [[_answer(by_id[name][row]) if name in by_id else None for name in (base, tuned)] for row in common]
    changes = [_change(*pair) for pair in both]
    rows = [
        _row(common[i], {name: lines[common[i]] for name, lines in by_id.items()}, tuned, changes[i])
        for i in _choose(changes, seed)
    ]
    return AnsweredRows(rows=_within_budget(rows), total=len(common), base=base, tuned=tuned)


def _row(name: str, lines: Mapping[str, Prediction], tuned: str | None, change: float | None) -> AnsweredRow:
    some = lines.get(tuned or "") or next(iter(lines.values()))
    return AnsweredRow(
        id=name,
        prompt=shorten(some.prompt),
        reference=shorten(some.reference or ""),
        category=some.category,
        cluster=some.cluster or some.row or name,
        answers={variant: _answer(line) for variant, line in lines.items()},
        change=change,
    )


@functools.lru_cache(maxsize=8192)
def row_chrf(answer: str, reference: str) -> float:
    """chrF++ of one answer, 0 to 100; of a very long one its first part."""
    import sacrebleu

    return sacrebleu.sentence_chrf(answer[:LONGEST], [reference[:LONGEST]], word_order=2).score


def free_prompts(predictions: Mapping[str, Sequence[Prediction]]) -> list[FreePrompt]:
    """The prompts of the configuration, which have no reference, with the answer of each variant."""
    rows: dict[str, FreePrompt] = {}
    for name, lines in predictions.items():
        for line in lines:
            empty = FreePrompt(id=line.id, prompt=shorten(line.prompt), answers={})
            rows.setdefault(line.id, empty).answers[name] = shorten(line.answer or "")
    return list(rows.values())[:MOST]


def _answer(line: Prediction) -> Answer:
    text = line.answer
    reference = line.reference or ""
    bits = None
    if line.logprob is not None and line.bytes:
        bits = round(-line.logprob / math.log(2) / line.bytes, 4)
    return Answer(
        text=None if text is None else shorten(text),
        chrf=None if text is None or not reference else round(row_chrf(text, reference), 2),
        exact=None if text is None or not reference else text.strip() == reference.strip(),
        bits_per_byte=bits,
        stopped=line.stopped,
    )


def _change(base: Answer | None, tuned: Answer | None) -> float | None:
    if base is None or tuned is None:
        return None
    if base.chrf is not None and tuned.chrf is not None:
        return round(tuned.chrf - base.chrf, 2)
    if base.bits_per_byte is not None and tuned.bits_per_byte is not None:
        return round(base.bits_per_byte - tuned.bits_per_byte, 4)
    return None


def shorten(text: str, longest: int = LONGEST) -> str:
    """The start of a long text."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest} more characters)"


def _choose(changes: list[float | None], seed: int) -> list[int]:
    """All rows if they are few; else a third each of the most worsened, the most improved, and a seeded rest."""
    if len(changes) <= MOST:
        return list(range(len(changes)))
    third = MOST // 3
    order = sorted(range(len(changes)), key=lambda i: changes[i] or 0.0)
    kept = set(order[:third]) | set(order[-third:])
    rest = [i for i in range(len(changes)) if i not in kept]
    return sorted(kept | set(random.Random(seed).sample(rest, MOST - len(kept))))


def _within_budget(rows: Iterable[AnsweredRow]) -> list[AnsweredRow]:
    """As many of the rows, from the first, as the page's budget takes."""
    kept, spent = [], 0
    for row in rows:
        texts = [row.reference, row.prompt, *(answer.text or "" for answer in row.answers.values())]
        spent += sum(len(html.escape(text).encode()) for text in texts) + 1000 + 400 * len(row.answers)
        if spent > BUDGET:
            break
        kept.append(row)
    return kept
