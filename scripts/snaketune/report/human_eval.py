"""The form for blind judging: two answers in a random order without names, or one to rate; and its hidden order.

The page holds neither names nor an order to find them by: which side shows the tuned model is derived from the form's
fingerprint when the votes are read back (see aggregate_votes), and never written anywhere.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from snaketune.config.schema import canonical
from snaketune.contracts.report import AnsweredRow, Form, FormItem, RunFindings

MOST = 100  # questions; more than a person judges with care
CRITERIA = ("accuracy", "relevance", "coherence", "completeness", "overall")
FILE_KIND = "snaketune votes"


def form(found: RunFindings) -> Form:
    """The questions to judge, each once however many rows ask it.

    Questions that base and tuned model answered alike cannot be preferred either way; they are only counted.
    """
    base, tuned = found.evaluation.answers.base, found.evaluation.answers.tuned
    rows = _distinct_questions([row for row in found.evaluation.answers.rows if _pair(row, base, tuned)])
    differing = [row for row in rows if len(set(_pair(row, base, tuned))) > 1]
    if len(differing) > MOST:
        chosen = sorted(random.Random(found.config.get("seed", 1)).sample(range(len(differing)), MOST))
        asked = [differing[i] for i in chosen]
    else:
        asked = differing
    texts = [[row.id, *_pair(row, base, tuned)] for row in asked]
    identity = canonical([found.run, found.config.get("seed"), base, tuned, texts])
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return Form(
        run=found.run,
        fingerprint=fingerprint,
        items=[_item(row, _pair(row, base, tuned), fingerprint) for row in asked],
        identical=len(rows) - len(differing),
        criteria=list(CRITERIA),
    )


def _distinct_questions(rows: Sequence[AnsweredRow]) -> list[AnsweredRow]:
    """The first row of each question."""
    first: dict[tuple[str, str], AnsweredRow] = {}
    for row in rows:
        first.setdefault((row.cluster, row.prompt), row)
    return list(first.values())


def _item(row: AnsweredRow, pair: Sequence[str], fingerprint: str) -> FormItem:
    left, right = reversed(pair) if tuned_is_left(fingerprint, row.id) else pair
    return FormItem(
        id=row.id, question=row.prompt, reference=row.reference, left=left, right=right, category=row.category
    )


def _pair(row: AnsweredRow, base: str | None, tuned: str | None) -> list[str]:
    """The texts of base and tuned model, nothing where one of them has none."""
    texts = [row.answers[name].text for name in (base, tuned) if name in row.answers]
    known = [text for text in texts if text is not None]
    return known if len(known) == 2 else []


def tuned_is_left(fingerprint: str, item: str) -> bool:
    """Which side of an item shows the tuned model: a fair coin that only the form's fingerprint decides."""
    return hashlib.sha256(f"{fingerprint}\0{item}".encode()).digest()[0] & 1 == 1
