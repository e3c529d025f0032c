"""The form for blind judging: two answers in a random order without names, or one to rate; and its hidden order.

The page holds neither names nor an order to find them by: which side shows the tuned model is derived from the form's
fingerprint when the votes are read back (`votes.py`), and never written anywhere.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

from snaketune.config import schema

MOST = 100  # questions; more than a person judges with care
CRITERIA = ("accuracy", "relevance", "coherence", "completeness", "overall")
KIND = "snaketune votes"


def form(found: dict[str, Any]) -> dict[str, Any]:
    """The questions to judge: {"run", "fingerprint", "items", "identical", "criteria"}.

    found: the facts of a run. An item: {"id", "question", "reference", "left", "right", "category"}. Questions
    that base and tuned model answered alike cannot be preferred either way; they are counted in `identical` only.
    """
    answers = found["evaluation"]["answers"]
    base, tuned = answers["base"], answers["tuned"]
    rows = [row for row in answers["rows"] if _both(row, base, tuned)]
    differing = [row for row in rows if row["answers"][base]["text"] != row["answers"][tuned]["text"]]
    if len(differing) > MOST:
        chosen = sorted(random.Random(found["config"].get("seed", 1)).sample(range(len(differing)), MOST))
        asked = [differing[i] for i in chosen]
    else:
        asked = differing
    texts = [[row["id"], *(row["answers"][name]["text"] for name in (base, tuned))] for row in asked]
    identity = schema.canonical([found["run"], found["config"].get("seed"), base, tuned, texts])
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:32]
    items = []
    for row in asked:
        pair = [row["answers"][name]["text"] for name in (base, tuned)]
        left, right = reversed(pair) if tuned_is_left(fingerprint, row["id"]) else pair
        kept = {key: row[key] for key in ("id", "question", "reference", "category")}
        items.append(kept | {"left": left, "right": right})
    return {
        "run": found["run"],
        "fingerprint": fingerprint,
        "items": items,
        "identical": len(rows) - len(differing),
        "criteria": list(CRITERIA),
    }


def _both(row: dict[str, Any], base: str | None, tuned: str | None) -> bool:
    return all(name in row["answers"] and row["answers"][name]["text"] is not None for name in (base, tuned))


def tuned_is_left(fingerprint: str, item: str) -> bool:
    """Which side of an item shows the tuned model: a fair coin that only the form's fingerprint decides."""
    return hashlib.sha256(f"{fingerprint}\0{item}".encode()).digest()[0] & 1 == 1
